"""Registrations of a biz in the process, and the proof that a biz is gone when it has left.

Here live the ledger of each biz (`ledger`), the question what belongs to a biz (`caches`), caches of shared code, the
collection of one biz alone (`collect`), the search for holders (`holders`), the purge and its report (`purge`), and the
published protocol by which libraries release a biz themselves (`releasers`). This is the mechanism: it knows no library
and no part of the standard library, `recorders` do. Nothing here decides when a biz leaves: `container` calls
`Ledger.undo_all` and `purge`.
"""
