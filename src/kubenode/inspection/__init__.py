"""This node as seen from outside: networks, reservations, leaks, faults. Looking changes nothing."""
