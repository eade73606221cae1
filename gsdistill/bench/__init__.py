"""The speed of a run's steps, by phase, on the path that `gsdistill generate` takes."""
