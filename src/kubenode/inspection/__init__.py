"""What is on this node, looked at from outside: networks, reservations, leaks, faults. Looking changes nothing."""
