# SPDX-License-Identifier: Apache-2.0
"""EDGE. The API server: credentials, TLS, proxies, requests and watches.

`docs/explanation/architecture.md` explains why the client is our own.
"""
