"""Whose module a name means.

Here lives everything that decides, for code of a biz and for shared code that works on its behalf, which module object
an import yields: the policy, the private module table, the biz's own ``__import__``, the hooks in the import system,
``sys.modules`` and its neighbours as code sees them, loaded extension files and distribution metadata.

What may not live here: undoing what a biz registered elsewhere (``ownership``), what it sees of the process apart from
its modules (``view``), reading artefacts (``artifact``).

``container`` makes one `namespace.Namespace` for each life of a biz and drops it when the biz leaves.
"""
