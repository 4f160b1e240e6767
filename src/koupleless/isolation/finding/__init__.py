"""Finders: where a Python module of one owner, a biz or a unit, comes from.

`origins` decides on the owner of a name by one value, from four kinds of facts: the owner's files (`files`), own copies
of libraries of the base (`copies`), shared libraries (`units`) and the base (`base`). `finder` answers imports and
questions for a spec by the decision; `unit_finder` is the finder of a shared library. `hooks` are the import hooks that
the owner's code adds, and `account` lists the owner's libraries.

Nothing here loads a Python module of the owner: the linker does so.
"""
