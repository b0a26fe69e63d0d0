"""Kubernetes: what a Node says (`node`, `annotation`: PURE) and how to ask an API server for it (`kubeconfig`, `client`: EDGE)."""
