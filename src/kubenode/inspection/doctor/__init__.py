"""What can be wrong with a node, a module for each area, a function for each check. `registry` has them all, in their order."""
