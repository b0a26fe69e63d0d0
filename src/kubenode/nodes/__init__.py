"""PURE. Node objects: their subnets, their annotations, and which Node is ours. No I/O: an API server is a Protocol."""
