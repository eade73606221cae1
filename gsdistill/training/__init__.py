"""Optimising Gaussians: the loop, its regularisers and its checkpoints."""
