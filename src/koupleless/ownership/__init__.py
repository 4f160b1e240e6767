"""What a biz registered in the process, and how it is undone when the biz leaves.

Here live the ledger of each biz, the recorders that write into it at the source (threads, processes, event loop,
interpreter, libraries, telemetry), the changes it made to shared modules, which are kept to it and taken back, the
selective purge of shared caches, and the purge report that proves the biz gone or names who holds it. Nothing here
decides when a biz leaves or knows how its modules are found: `container` calls `install_recorders` of `libraries`,
`Ledger.undo_all` of `ledger`, `adopt_loop` of `eventloop`, `Changes.watch` of `changes`, and `Survey` and `purge` of
`purge`.
"""
