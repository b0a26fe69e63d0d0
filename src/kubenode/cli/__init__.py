"""What a person runs, one module per command, imported on demand."""
