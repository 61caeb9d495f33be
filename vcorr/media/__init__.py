"""Videos and images: read in order, in bounded memory, and written whole or not at all."""
