"""Label files of other tools: a file a format, read and written."""
