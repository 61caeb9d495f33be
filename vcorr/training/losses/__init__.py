"""The loss terms of training."""
