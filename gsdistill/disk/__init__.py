"""Files: reading with care, whole writing, locks, caches, and the paths that settings name."""
