"""Recorders and sweeps of registries of libraries that a base may have: one library, or one kind of library, a file.

No library is imported for its recorder: functions are replaced when the base imports the library.
"""
