"""A run as a user has it: its settings, its folder, what may change on resume, and what is shown on the way."""
