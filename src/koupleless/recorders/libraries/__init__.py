"""Recorders and sweeps for registries of libraries in a base: one library, or one kind of library, a file.

No library is imported for its recorder: functions are replaced when the base imports the library.
"""
