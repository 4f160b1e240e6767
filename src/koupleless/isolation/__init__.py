"""Imports of a biz: the Python module that a name means, for code of the biz and for shared code on behalf of the biz.

Here live the policy, the linker of each biz with its table of Python modules and its ``__import__`` (`linking`), the
finders that decide on the origin of a name (`finding`), libraries and their metadata (`libraries`), the hooks in the
import system (`imports`), and the views of ``sys.modules`` (`modules`) and of its neighbours (`system`).

Elsewhere live the undoing of registrations that a biz made (``ownership``), the view of a biz on the process apart from
Python modules (``view``), and the reading of artefacts (``artifact``).

``container`` makes one `namespace.Namespace` for each life of a biz, and drops the namespace when the biz leaves.
"""
