"""Fetching: locations and their rules, and the HTTP client for downloads.

Lives here: no knowledge of artefacts but the first bytes of an archive. Called by `koupleless.artifact.fetch`.
"""
