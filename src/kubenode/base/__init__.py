# SPDX-License-Identifier: Apache-2.0
"""Base of all other packages: records, JSON, files, the log, threads, the HTTP server. Knows neither CNI nor Kubernetes."""
