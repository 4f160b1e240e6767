"""Reading texts of strangers into checked values: every mistake becomes an issue, none an exception.

Lives here: parsers with limits, the reader of TOML tables, and the keys common to all spellings of a manifest. May not:
touch files, know artefacts. Called by the manifests and by the builder's reader of projects.
"""
