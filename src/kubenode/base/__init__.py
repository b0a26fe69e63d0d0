"""Ground for all other packages: records, JSON, files, the log, threads, the HTTP server. It knows neither CNI nor Kubernetes."""
