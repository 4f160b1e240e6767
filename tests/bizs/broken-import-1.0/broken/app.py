"""Raises while it is imported."""


def configure() -> None:
    raise RuntimeError("no database at 10.0.0.1")


configure()
