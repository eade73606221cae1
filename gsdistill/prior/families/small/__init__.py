"""Priors of closed worlds: small networks, trained on pictures of a world, with their own text encoders."""
