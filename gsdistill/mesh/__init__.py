"""From a splat to a coloured triangle mesh: photographs of it, a solid on a grid, its surface, colours, a file."""
