"""The command line: commands and exit codes. Results go to stdout, progress and errors to stderr.

Exit codes: 0 ok, 1 internal error, 2 usage, 3 input unreadable or invalid, 4 output cannot be written, 5 some of
several videos failed, 75 stopped by a signal after saving (run the command again to resume), 130 Ctrl-C.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from vcorr.commands import bench, evaluate, recipes, weights
from vcorr.commands.batch import batch
from vcorr.commands.console import fail, first_rank, print_any_name
from vcorr.commands.doctor import doctor
from vcorr.commands.export import export
from vcorr.commands.frame import frame
from vcorr.commands.prepare import prepare
from vcorr.commands.propagate import Propagate, propagate
from vcorr.commands.train import train
from vcorr.commands.ui import ui
from vcorr.errors import VcorrError

app = typer.Typer(
    help="Label one frame of a video and get every frame labelled. Train on raw video.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command(cls=Propagate)(propagate)
app.command()(ui)
app.command()(frame)
app.command()(export)
app.command()(batch)
app.command()(train)
app.command()(prepare)
app.add_typer(evaluate.app, name="evaluate")
app.add_typer(recipes.app, name="recipes")
app.add_typer(weights.app, name="weights")
app.add_typer(bench.app, name="bench")
app.command()(doctor)


def main() -> None:
    """Run the command. An error that the user can fix is one line on stderr and an exit code."""
    debug = "--debug" in sys.argv[1:]
    print_any_name()
    try:
        app(args=[a for a in sys.argv[1:] if a != "--debug"])
    except VcorrError as error:
        if debug:
            raise
        if error.shared and not first_rank():
            sys.exit(error.exit_code)
        fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        fail("stopped by Ctrl-C; run the same command to resume", 130)
    except Exception as error:
        if debug:
            raise
        fail(f"internal error: {type(error).__name__}: {error}; run again with --debug and report what it prints", 1)


def _version(wanted: bool) -> None:
    if wanted:
        from vcorr.machine import versions

        typer.echo("\n".join(f"{name} {value}" for name, value in versions().items()))
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print versions and device.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Print the traceback of an error.")] = False,
) -> None:
    """Options before the command; ``main`` reads --debug anywhere."""
