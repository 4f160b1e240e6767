"""Commands about the modules that a base keeps: again, back, to a file, from a file, and the end of the base.

`commands` are flags and words, `lockfile` is the file. Only `koupleless.cli.commands` imports this room.
"""
