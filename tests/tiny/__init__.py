"""Small models of the real classes with random weights, saved as their pipelines save them: one file per family.

Each has ``build(path) -> path``, which makes a whole folder in the diffusers layout, model_index.json included.
"""
