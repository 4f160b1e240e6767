"""Logging, each biz's own: `logs` makes the functions of `logging` answer by context, `logspace` is one biz's state."""
