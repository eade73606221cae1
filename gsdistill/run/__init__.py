"""A run: its settings, its folder, what may change when it is resumed, and what it shows while it works."""
