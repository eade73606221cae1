"""The command line: words to settings, and one module for each command."""
