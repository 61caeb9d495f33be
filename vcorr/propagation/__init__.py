"""Labels of some frames to labels of all."""
