"""Commands for a person, each in a module, imported on demand."""
