"""EDGE. The API server: credentials, TLS, proxies, requests and watches."""
