import logging


class Memory(logging.Handler):
    def __init__(self, size):
        super().__init__()
        self.size = size
        self.lines = []

    def emit(self, record):
        self.lines.append(self.format(record))


def only_tour(record):
    return record.name.startswith("tour")


class Loud(logging.Formatter):
    def format(self, record):
        return super().format(record).upper()
