"""What ``gsdistill doctor`` finds: on this machine, of one model, and in a short run."""
