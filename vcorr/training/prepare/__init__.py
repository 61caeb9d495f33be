"""Videos decoded and shrunk once, into folders of frames."""
