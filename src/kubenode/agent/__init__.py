# SPDX-License-Identifier: Apache-2.0
"""EDGE. The agent, one process per node: it serves the plugins' calls, watches its own Node, and reclaims leaked addresses."""
