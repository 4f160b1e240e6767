"""No web face: a function that is called once, at the start."""

from koupleless import current_biz, on_stop

calls: list[str] = []


def main() -> None:
    calls.append(f"main of {current_biz()}")


@on_stop
def goodbye() -> None:
    calls.append("goodbye")
