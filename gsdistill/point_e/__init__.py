"""Point-E: text to a coloured point cloud by two diffusion transformers, a base and an upsampler.

Point-E: A System for Generating 3D Point Clouds from Complex Prompts, https://arxiv.org/abs/2212.08751
"""
