"""Keeping: the parts of an entry of the store, each by itself: unpacked files, bytecode, inventory, session.

Lives here: writing and checking files below one directory. May not: decide which entries exist or stay, as
`koupleless.artifact.store` does, the caller of this room. ``bytecode`` is called by the builder, too.
"""
