"""Recorders: functions in the place of functions of the process that register something, one subject a file.

A recorder writes each registration of a biz, with its undo, into the ledger of the biz, or sweeps the registry when the
biz leaves. `running` has the recorders of whatever runs or is open, `loops` those of the event loop, `registries` those
of lists and tables of the interpreter and the standard library, `libraries` those of libraries in a base. Nothing here
decides when a biz leaves, and `ownership`, the mechanism, imports nothing from here. `container` calls
`install_recorders` of `door` and hands `SWEEPS` of `door` to the purge.
"""
