"""Recorders and sweeps of registries of the interpreter and the standard library.

Registries in which each biz has entries of its own from the start are in `koupleless.view`.
"""
