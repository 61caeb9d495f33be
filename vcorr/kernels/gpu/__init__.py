"""The operators as Triton kernels; nothing here is imported where none is asked for."""
