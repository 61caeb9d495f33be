"""The commands, a file each: they parse and print, and compute nothing."""
