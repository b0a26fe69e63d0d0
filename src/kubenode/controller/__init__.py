# SPDX-License-Identifier: Apache-2.0
"""EDGE. The controller, one per cluster: it watches pools and nodes, lets `pools` decide, and writes the result."""
