"""Cost of a training step on hardware that is not available: compiled ahead of time, never run."""
