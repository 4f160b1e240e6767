"""A module: what things cost."""
