"""Pages for a browser: the report of a run, which is one file, and the gallery of all runs in a folder."""
