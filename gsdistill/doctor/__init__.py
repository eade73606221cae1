"""What ``gsdistill doctor`` finds out: about this machine, about one model, and by a short run."""
