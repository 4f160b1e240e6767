"""The demonstration of ``arkctl demo``: its script, its display, and the processes it starts.

Lives here: all code used by ``arkctl demo`` alone. Its applications are templates in ``cli/demo_modules``.
"""
