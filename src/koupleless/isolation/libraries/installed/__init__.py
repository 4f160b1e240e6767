"""Installed distributions: facts read from files, and remembered; no decision, and nothing of a biz.

`index` has the distributions of one search path with their Python modules, from the files of each (`record`);
`relations` says which distributions need which, from metadata and from imports in source (`mentions`); `contents` has
digests that tell whether two installations are equal.
"""
