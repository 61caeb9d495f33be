"""Training clips: the dataset, and what is cut from it, in which order."""
