"""Registrations of a biz in the process, and the proof that a biz is gone after an uninstall.

Here live the ledger of each biz (`ledger`), the means to see registrations (`recording`) and the few kinds of them
(`kinds`), the question which objects belong to a biz (`belonging`), caches of shared code (`caches`), the collection of
one biz alone (`collect`), the search for holders (`holders`), the purge and its report (`purge`), and
registrations that concern a library alone (`registered`). The room is the mechanism: no library and no part of the
standard library is known here, but in `recorders` and `adapters`. Nothing here decides when a biz leaves: `container`
calls `Ledger.undo_all` and `purge`.
"""
