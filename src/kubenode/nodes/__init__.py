# SPDX-License-Identifier: Apache-2.0
"""PURE. Node objects: their subnets and annotations, and the search for the own Node. No I/O: an API server is a Protocol."""
