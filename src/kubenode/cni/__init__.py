"""PURE. The Container Network Interface itself: environment, configuration, results, versions, errors. No I/O, no addresses to give."""
