"""The owner of all bizs of one base: which are there, in what state, and the ordered steps between states.

Decisions are made under one short lock and carried out outside it: no code of a biz, no disk and no network runs while
it is held. What a step needs (namespace, ledger, gate, logs) belongs to the rooms below and is only put in order
here; a file of this room that touches a zip file, ``sys.meta_path`` or a socket is wrong. Called by ``base`` and
``arklet``.
"""
