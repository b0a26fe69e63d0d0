"""Commands for a person, one module each, imported on demand."""
