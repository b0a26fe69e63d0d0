"""PURE. Address management: subnets, ranges, families, the allocator. No I/O: the store is a Protocol."""
