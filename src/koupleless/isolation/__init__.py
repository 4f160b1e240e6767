"""Imports of a biz: the Python module that a name means, for code of the biz and for shared code on behalf of the biz.

Here live the policy, the private table of Python modules, the ``__import__`` of each biz, the hooks in the import
system, the views of ``sys.modules`` and its neighbours, loaded extension files and distribution metadata.

Elsewhere live the undoing of registrations that a biz made (``ownership``), the view of a biz on the process apart from
Python modules (``view``), and the reading of artefacts (``artifact``).

``container`` makes one `namespace.Namespace` for each life of a biz, and drops the namespace when the biz leaves.
"""
