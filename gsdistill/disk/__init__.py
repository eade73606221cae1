"""Files: careful reading, atomic writing, locks, caches, and the paths in settings."""
