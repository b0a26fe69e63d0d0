"""EDGE. The node agent: it watches its own Node and serves the plugins. What a plugin does with a call is not decided here."""
