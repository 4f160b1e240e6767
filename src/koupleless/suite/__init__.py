"""The tests of a source tree, run inside a biz: the proof that an application may become a module.

Here lives what `arkctl test` does: what the tree needs, put where a biz finds it (`furnish`); the process in which it
runs as a biz, and the one in which it runs alone (`inside`, `run`); the comparison of the two (`outcomes`). Nothing
here knows a particular suite, and nothing is loaded into a base.
"""
