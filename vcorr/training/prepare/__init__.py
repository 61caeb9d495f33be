"""Decodes and shrinks videos once, into folders of frames."""
