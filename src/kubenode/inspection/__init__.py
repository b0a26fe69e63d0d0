"""The node and the cluster seen from outside: networks, reservations, leaks, faults. Only `stale` changes anything."""
