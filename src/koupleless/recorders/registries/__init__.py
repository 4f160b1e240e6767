"""Recorders and sweeps for registries of the interpreter (`interpreter`) and the standard library.

Registries in which each biz has own entries from the start are in `koupleless.view`.
"""
