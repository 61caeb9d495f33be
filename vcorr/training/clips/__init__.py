"""Training clips: the data set, and what is cut from it, in which order."""
