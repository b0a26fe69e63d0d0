# SPDX-License-Identifier: Apache-2.0
"""Installation of a release on a host, and its removal: executables, credentials, network configuration. Every step can be undone."""
