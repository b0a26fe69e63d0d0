"""EDGE. The node agent: one process a node that serves the plugins' calls, watches its own Node and takes back what has leaked."""
