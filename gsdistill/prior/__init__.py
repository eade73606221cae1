"""Diffusion priors behind one interface: each has encode, encode_text, condition and predict_noise."""
