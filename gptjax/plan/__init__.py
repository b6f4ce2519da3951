"""What a training step will take, on hardware that is not here: compiled ahead of time, and never run."""
