"""How good a splat is, measured against the truth of the shapes world: silhouettes, colours, name and surface."""
