"""Differentiable rasterisation of Gaussian splats: one interface (base), one module per backend."""
