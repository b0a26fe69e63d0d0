# SPDX-License-Identifier: Apache-2.0
"""Plugins, one module each: composition only. The work is in `cni`, `ipam`, `nodes` and `host`."""
