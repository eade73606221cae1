"""The procedural world: solids as signed distance functions, a caption grammar with its parser, and a ray-caster.

It is the training data of the shapes prior and, because every prompt in it has a known object, the ground truth
that generated splats are judged against.
"""
