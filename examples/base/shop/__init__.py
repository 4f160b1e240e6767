"""The base of the examples."""
