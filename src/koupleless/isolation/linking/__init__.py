"""Linkers: the table of Python modules of one owner, a biz or a unit, and the imports of code of that owner.

An import statement goes through `statements`, is answered by `answers` if finished before, or else by `linker`, which
finds and loads a Python module and enters the module into the `table`. `stores`, `children`, `lazy` and `lent` serve
the linker: changes by code to objects of others, submodules below packages of others, lazy imports, import hooks.

Nothing here looks for files: a `locator` answers where a Python module comes from.
"""
