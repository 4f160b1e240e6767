"""Artefacts, the form of a biz on disk: manifests, sources, the store of unpacked artefacts, and the builder.

Readers expect input from strangers: all input is checked before any part is used, all mistakes are reported at once,
and a failure leaves nothing behind. No code of a biz is imported or run here, and nothing here knows of containers,
namespaces or routes. ``fetch``, ``source`` and ``store`` are called by ``container`` while an install is prepared;
``build`` by ``cli`` and ``koupleless.testing``. Standard library and ``packaging`` only.
"""
