"""Recorders and sweeps of registries of the interpreter and the standard library.

Registries in which each biz has own entries from the start are in `koupleless.view`.
"""
