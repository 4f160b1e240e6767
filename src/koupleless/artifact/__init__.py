"""What a module is on disk: its manifest, where it comes from, how it is kept, and how it is made.

Reading is built for input from strangers: everything is checked before any of it is used, every mistake is reported at
once, and whatever fails leaves nothing behind. Nothing here imports or runs code of a module, and nothing knows of
containers, namespaces or routes. ``fetch``, ``source`` and ``store`` are called by ``container`` while it prepares an
install; ``build`` by ``cli``. Standard library and ``packaging`` only.
"""
