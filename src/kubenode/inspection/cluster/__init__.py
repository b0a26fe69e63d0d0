# SPDX-License-Identifier: Apache-2.0
"""The cluster as its API server shows it: owners of addresses, and faults. It asks no node, and changes nothing."""
