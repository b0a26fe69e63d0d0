# SPDX-License-Identifier: Apache-2.0
"""PURE. Address management: subnets, ranges, families, the allocator. No I/O: the store is a Protocol."""
