"""Methods x prompts x seeds on the shapes world: run, measured against the truth, and put side by side."""
