"""The scene: where Gaussians start, which cameras look at them, and how their number changes during a run."""
