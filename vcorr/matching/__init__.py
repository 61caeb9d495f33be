"""What of one frame corresponds to what of another: features in, reconstructions out."""
