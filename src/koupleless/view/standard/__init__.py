"""State of the standard library, each biz's own: one Python module of the standard library, or one kind, a file."""
