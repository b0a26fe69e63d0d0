"""Kubernetes: what a Node says (`node`, `annotation`: PURE) and the API server (EDGE): the way there, two clients, `reflector`.

`docs/explanation/architecture.md` says why the client is our own.
"""
