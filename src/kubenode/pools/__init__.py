# SPDX-License-Identifier: Apache-2.0
"""PURE. Assignment of pools' subnets to nodes: records, free space, the ledger, and the writes that follow. No I/O."""
