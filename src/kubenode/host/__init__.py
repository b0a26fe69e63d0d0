"""EDGE. This host: reservations and the Node view on disk, the runtime's configuration, other plugins."""
