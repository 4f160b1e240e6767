"""The tests of a source tree, run inside a biz: the proof that an application may become a module.

Here live the parts of `arkctl test`: installing a tree and its requirements (`furnish`), running the tree as a biz and
alone, each in a process (`inside`, `run`), and comparing the two runs (`outcomes`). The biz is set up as in
a base, by `container.starting.facets`. Nothing here knows a particular suite, and nothing is loaded into a base.
"""
