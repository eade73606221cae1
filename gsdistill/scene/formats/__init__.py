"""Readers of the formats of splats, one file each: what a format's numbers are stands here, for its writer too."""
