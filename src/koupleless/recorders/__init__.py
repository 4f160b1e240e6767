"""Recorders: functions in the place of functions of the process that register something, one subject a file.

A recorder declares its kinds of registration (``KINDS``) and writes each registration of a biz, with its undo, into the
ledger of the biz; or it sweeps the registry when the biz leaves (``SWEEPS``). `running` has the recorders for code that
runs and for open resources, `loops` has the recorders for the event loop, and `registries` has the recorders for lists
and tables of the interpreter and the standard library. Libraries are known to `adapters`. Nothing here decides when a
biz leaves, and `ownership`, the mechanism, imports nothing from here. `container` acquires `RECORDING` of `door` and
hands `SWEEPS` of `door` to the purge.
"""
