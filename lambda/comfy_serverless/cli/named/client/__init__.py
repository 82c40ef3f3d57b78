"""The typed client of a named workflow: a Python file that stands alone. `generate` makes it of a schema."""
