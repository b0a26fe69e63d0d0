"""PURE. Which addresses there are and which is next: subnets, ranges, families, the allocator. No I/O: the store is a Protocol."""
