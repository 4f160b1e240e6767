"""
>>> double(4)
8
"""

import warnings


def double(number):
    return number * 2


def warn():
    warnings.warn("old", DeprecationWarning, stacklevel=2)
