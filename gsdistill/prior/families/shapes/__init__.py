"""The shapes prior: a small network of pictures of the shapes world, with its own text encoder."""
