"""The command line: turns words into settings, with one module for each command."""
