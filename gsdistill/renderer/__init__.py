"""Differentiable rasterisation of Gaussian splats: one interface (base), one module per backend."""

NOT_LISTED = ("harmonics", "maps", "meshes")  # no backends
