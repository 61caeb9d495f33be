"""``vcorr export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

FORMS = "coco, yolo, labelme, cvat, objects, alpha, green, csv, deeplabcut"


def export(
    out: Annotated[Path, typer.Argument(help="A complete output folder of `vcorr propagate`.")],
    to: Annotated[list[str], typer.Option(metavar="NAME", help=f"Format: {FORMS}. Repeat as needed.")],
) -> None:
    """Write finished results in the formats of other tools, into OUT/export."""
    from vcorr.propagation.export import check_form, finished
    from vcorr.propagation.export import export as write

    kind = finished(out).kind
    for form in [check_form(name, kind) for name in to]:
        typer.echo(write(out, form))
