"""One per cluster: gives every node subnets of its own. `records`, `selector`, `held`, `pools`, `status`: PURE; the rest talks to the API server."""
