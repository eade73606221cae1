"""How good a splat is: against a truth (silhouettes, colours, name, surface), by itself, and by what a prior sees."""
