"""A package that does what packages do: its tests must not notice that they run inside a biz."""

VALUE = 1


def __getattr__(name):
    if name == "lazy":
        import tour.late

        return tour.late
    raise AttributeError(name)
