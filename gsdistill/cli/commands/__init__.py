"""The commands, one module for each: its settings, and what carries it out. None imports anything heavy for that."""

INTERFACE = "Command"
