"""Training networks, priors and generators: data streams, averaged weights, mixed precision, processes, the loop."""
