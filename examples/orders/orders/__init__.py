"""A module: who bought what."""
