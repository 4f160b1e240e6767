"""Shared libraries that keep state, one a file: each biz gets its own, and the library stays shared.

An adapter names its distribution and follows modules of it, which means that it replaces functions and registries of
theirs once the base has imported them; nothing is imported for it. Replacements answer as the originals do while no
biz is running. Nothing here decides how a library is held (`isolation.known` has the words), and nothing is undone here
when a biz leaves: values of a biz hang on its scope and go with it. Called by `container`.
"""
