"""Labels of a frame: read, written and drawn."""
