"""Shared libraries that keep state, one a file: each biz gets a state of its own, and the library stays shared.

An adapter names its distribution and follows Python modules of the distribution: once the base has imported such a
Python module, the adapter replaces functions and registries; nothing is imported for an adapter. Replacements answer as
the originals do while no biz is running. How a library is held is not decided here (`isolation.known` has the words),
and nothing is undone here when a biz leaves: values of a biz hang on its scope and go with the scope. Called by
`container`.
"""
