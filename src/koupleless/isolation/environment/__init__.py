"""Virtual environments of bizs: an interpreter started by a biz, as a child, has the Python modules of the biz."""
