# SPDX-License-Identifier: Apache-2.0
"""EDGE. The host: reservations and Node view on disk, the runtime's configuration, other plugins."""
