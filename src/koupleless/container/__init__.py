"""The owner of all bizs of one base: the table of bizs, their states, and the ordered steps between states.

Decisions are made under one short lock and carried out without the lock: no code of a biz, no disk and no network runs
while the lock is held. The parts of a step (namespace, ledger, gate, logs) belong to the rooms below and are only put
in order here; a file of this room that touches a zip file, ``sys.meta_path`` or a socket is wrong. Called by ``base``
and ``arklet``.
"""
