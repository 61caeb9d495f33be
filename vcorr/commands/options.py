"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...; auto picks a GPU if there is one.")]


def weights_file(path: Path) -> Path | None:
    """None, which stands for the weights that come with vcorr, where they are asked for by name."""
    return None if str(path) == "default" else path
