"""The encoder as pure functions: layers, colour, position encodings, and the weights on disk."""
