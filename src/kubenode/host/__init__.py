"""EDGE. This host: reservations and the Node view on disk, other plugins, the log."""
