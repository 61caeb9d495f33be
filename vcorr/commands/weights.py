"""``vcorr weights``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperGroup

from vcorr.commands.options import weights_file


class _ShowUnlessTold(TyperGroup):
    """``vcorr weights FILE`` shows a file; ``vcorr weights convert FILE`` is a command of its own."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        if not args or (args[0] not in self.commands and args[0] != "--help"):
            args = ["show", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_ShowUnlessTold, help="Show a weights file or write a copy; convert checkpoints of other projects."
)


@app.command()
def convert(
    file: Annotated[
        Path, typer.Argument(help="Checkpoint of CorrFlow, MAST, LIIR or CRW, or a ResNet-18 of torchvision.")
    ],
    out: Annotated[Path, typer.Argument(help="Weights file to write, such as mast.safetensors.")],
    like: Annotated[
        str | None,
        typer.Option(
            help="Method whose way of reading labels to use: corrflow, mast, liir, crw or torchvision; default: by the "
            "names."
        ),
    ] = None,
    stride: Annotated[
        int | None, typer.Option(help="Pixels a feature cell of a ResNet-18 of torchvision, 4 or 8; default: 8.")
    ] = None,
) -> None:
    """Convert a released checkpoint into a weights file. Tensors that do not belong to the network are listed."""
    from vcorr.model.convert import convert as converted
    from vcorr.model.weights import save_weights

    found = converted(file, like, stride)  # type: ignore[arg-type]
    save_weights(out, found)
    left = f"; left out: {found.meta['left_out']}" if "left_out" in found.meta else ""
    count = sum(p.numel() for p in found.params.values())
    typer.echo(f"{out}: {count} parameters, read as {found.meta['converted']}{left}")


@app.command()
def show(
    file: Annotated[Path | None, typer.Argument(help="Weights file; default: the shipped weights.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Change settings of reading, such as inference.radius=8."),
    ] = None,
    export: Annotated[Path | None, typer.Option(help="Write a copy in half precision.")] = None,
) -> None:
    """Show where weights come from and how they read labels; write a copy."""
    from vcorr.config import flatten, override
    from vcorr.model.inference import Settings
    from vcorr.model.weights import load_weights, save_weights

    loaded = load_weights(None if file is None else weights_file(file))
    how = override(Settings(loaded.matching, loaded.inference, loaded.space), overrides or [])
    loaded = dataclasses.replace(loaded, matching=how.matching, inference=how.inference, space=how.space)
    facts = {k: v for k, v in loaded.meta.items() if not isinstance(v, dict)}
    facts["parameters"] = sum(p.numel() for p in loaded.params.values())
    facts |= flatten(how)
    typer.echo("\n".join(f"{k}={v}" for k, v in facts.items()))
    if export is not None:
        save_weights(export, loaded, half=True)
