"""The shipped recipes: one file an experiment."""
