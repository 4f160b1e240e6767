"""Libraries that bizs share, one a file: state kept apart for each biz, registrations recorded and released.

An adapter has the published form of a releaser: it names its ``distribution``, and the ``versions`` it is for where it
is not for any; ``release`` takes the objects of a leaving biz out of the library, if the base has imported ``module``,
and counts the objects by the kinds in ``released``. Adapters also have ``follow``: Python modules of the library, each
with a function that replaces functions and registries once the base has imported the Python module; nothing is imported
for an adapter. The functions in ``follow_own`` are for own copies and own versions of a biz, too. Replacements answer
as the originals do while no biz is running. ``KINDS`` are the kinds of registration that an adapter records.

`releasers` finds the releasers of the environment and calls them together with the adapters. How a library is held is
not decided here (`isolation.libraries.known` has the words), and values of a biz hang on its scope and go with the
scope. Called by `container`.
"""
