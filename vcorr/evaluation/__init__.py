"""Scores on the benchmarks, by their own protocols."""
