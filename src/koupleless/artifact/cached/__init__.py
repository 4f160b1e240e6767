"""Caching: results of slow steps of a build, kept in the cache directory of the user for later builds.

Lives here: the directory (`cache`), and a digest of the settings of pip (`settings`). May not: decide what is built, or
fail a build. Called by ``building``, and by the commands that show and clean the cache.
"""
