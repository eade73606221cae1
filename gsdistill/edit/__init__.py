"""Changing a splat that is there: the command ``edit``."""
