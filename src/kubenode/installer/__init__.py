"""What a release puts on a host and takes away again: executables, credentials, network configuration. Every step can be undone."""
