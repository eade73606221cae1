"""Methods x prompts x seeds: run, measured against the truth where it is known, and put side by side."""
