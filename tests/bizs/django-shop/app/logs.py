"""A log handler that settings name by its dotted name."""

import logging


class Memory(logging.Handler):
    lines = []

    def emit(self, record):
        self.lines.append(self.format(record))
