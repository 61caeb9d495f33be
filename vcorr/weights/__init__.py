"""The default weights and their model card."""
