"""One module per plugin, composition only: what it does is a call away in `cni`, `ipam`, `nodes` and `host`."""
