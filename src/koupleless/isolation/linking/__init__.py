"""Linkers: the table of Python modules of one owner, a biz or a unit, and the imports of code of that owner.

Nothing here looks for files: a finder of `koupleless.isolation` answers where a Python module comes from.
"""
