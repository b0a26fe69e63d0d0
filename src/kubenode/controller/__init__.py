"""One per cluster: gives every node subnets of its own. What decides is PURE (`pools` first); the rest talks to the API server."""
