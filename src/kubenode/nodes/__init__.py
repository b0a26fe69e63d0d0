"""PURE. What a Node object says: its subnets, its annotations, and which Node is ours. No I/O: an API server is a Protocol."""
