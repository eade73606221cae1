"""The shapes prior: a small network trained on pictures of the shapes world, with its own text encoder."""
