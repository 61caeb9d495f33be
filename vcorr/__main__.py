"""``python -m vcorr`` is the command ``vcorr``."""

from vcorr.cli import main

main()
