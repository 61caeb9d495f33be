"""vcorr: self-supervised video correspondence."""

__version__ = "0.1.0"
