"""``vcorr recipes``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(invoke_without_command=True)


@app.callback()
def recipes(context: typer.Context) -> None:
    """List the shipped recipes. `copy` writes one to a file that you can change."""
    if context.invoked_subcommand is None:
        from vcorr.training.recipe import shipped, summary

        for name, path in shipped().items():
            typer.echo(f"{name:13} {summary(path)}")


@app.command()
def copy(name: Annotated[str, typer.Argument(help="Name of a shipped recipe.")]) -> None:
    """Copy a recipe into the current folder. `vcorr train NAME.py` trains the copy."""
    from vcorr.training.recipe import copy as copy_to

    typer.echo(copy_to(name, Path()))
