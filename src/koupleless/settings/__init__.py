"""Settings of an operator: frozen groups of values, read once, where a process is put together.

A value comes from the first place with the value: a flag, the environment, a table in a file, the default. Only
``base`` and ``cli`` read settings; all rooms below take plain values. Each group has its own file, so that a command
line does not pay for the settings of a base.

The name of a field is the key: ``log_dir`` is ``log-dir`` in a table, ``KOUPLELESS_BASE_LOG_DIR`` in the environment. A
field with a counterpart in the Java original is also read under the original's property name: as a table key unchanged,
from the environment in upper case with ``_``.
"""
