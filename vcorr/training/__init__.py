"""Training: what an experiment is, the one loop, its clips, losses and the folder of a run."""
