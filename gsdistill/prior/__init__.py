"""Diffusion priors behind one interface: each yields encode, encode_text, condition and predict_noise."""
