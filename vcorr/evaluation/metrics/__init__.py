"""Measures of results against annotations."""
