"""Distillation without a scene: points and pictures follow a method's gradient; the papers' claims as figures."""
