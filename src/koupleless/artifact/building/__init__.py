"""Building: the parts of the builder, from a project to decisions and files.

Lives here: options, projects and their files, single files, refused calls, requirements, slimming, pip. May not: write
the artefact, as `koupleless.artifact.build` does. ``requirements`` is called by ``container`` before an install, and
``pip`` by ``suite``.
"""
