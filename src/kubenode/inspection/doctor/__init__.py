"""Faults of a node: a module for each area, a function for each check. `registry` has them all, in their order."""
