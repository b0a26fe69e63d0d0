"""EDGE. One per cluster: it watches pools and nodes, lets `pools` decide, and writes what has to be written."""
