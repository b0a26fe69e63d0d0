# SPDX-License-Identifier: Apache-2.0
"""The node and the cluster seen from outside: networks, reservations, leaks, faults. Only `stale` changes anything."""
