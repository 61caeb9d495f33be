"""``vcorr weights``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer


def weights(
    file: Annotated[Path | None, typer.Argument(help="A weights file; default: the one that comes with vcorr.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Read labels otherwise: inference.radius=8."),
    ] = None,
    export: Annotated[Path | None, typer.Option(help="Write a copy in half precision, at half the size.")] = None,
) -> None:
    """Show where weights come from and how labels are read with them; write a copy."""
    from vcorr.config import flatten, override
    from vcorr.model.inference import Settings
    from vcorr.model.weights import load_weights, save_weights

    loaded = load_weights(file)
    how = override(Settings(loaded.matching, loaded.inference, loaded.space), overrides or [])
    loaded = dataclasses.replace(loaded, matching=how.matching, inference=how.inference, space=how.space)
    facts = {k: v for k, v in loaded.meta.items() if not isinstance(v, dict)}
    facts["parameters"] = sum(p.numel() for p in loaded.params.values())
    facts |= flatten(how)
    typer.echo("\n".join(f"{k}={v}" for k, v in facts.items()))
    if export is not None:
        save_weights(export, loaded, half=True)
