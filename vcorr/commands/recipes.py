"""``vcorr recipes``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(invoke_without_command=True)


@app.callback()
def recipes(context: typer.Context) -> None:
    """List the recipes that come with vcorr; ``copy`` one to change it."""
    if context.invoked_subcommand is None:
        from vcorr.training.recipe import shipped, summary

        for name, path in shipped().items():
            typer.echo(f"{name:13} {summary(path)}")


@app.command()
def copy(name: Annotated[str, typer.Argument(help="A shipped recipe.")]) -> None:
    """Put a recipe in the folder you stand in; ``vcorr train NAME.py`` trains the copy."""
    from vcorr.training.recipe import copy as copy_to

    typer.echo(copy_to(name, Path()))
