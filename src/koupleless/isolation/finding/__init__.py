"""Finders: where a Python module of one owner, a biz or a unit, comes from."""
