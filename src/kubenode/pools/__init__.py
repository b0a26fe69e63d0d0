"""PURE. Which node gets which subnet of which pool: records, free space, the ledger, and what has to be written. No I/O."""
