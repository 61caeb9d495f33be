"""``vcorr evaluate``: a command for each benchmark."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from vcorr.commands.console import say, table
from vcorr.commands.options import weights_file
from vcorr.commands.signals import stoppable
from vcorr.errors import UsageError

app = typer.Typer(help="Official scores of the benchmarks.", no_args_is_help=True)


@app.command()
def davis(
    root: Annotated[Path, typer.Option(help="Data set: ROOT/Annotations/480p/SEQUENCE/00000.png.")],
    pred: Annotated[Path | None, typer.Option(help="Results to score: PRED/SEQUENCE/00000.png.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Propagate with these weights first, or 'default'.")] = None,
    out: Annotated[Path | None, typer.Option(help="With --weights: keep the masks here.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default: one for each core at hand.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the scores as JSON.")] = False,
) -> None:
    """DAVIS-2017, semi-supervised: J, F, their recalls and decays, by the official protocol."""
    import tempfile

    from vcorr.evaluation.davis import check_davis, evaluate_davis

    if (pred is None) == (weights is None):
        raise UsageError(
            "--pred and --weights",
            "give exactly one of them",
            "--pred DIR scores results, --weights FILE makes them first",
        )
    with stoppable(out), tempfile.TemporaryDirectory(prefix="vcorr-") as scratch:
        if weights is not None:
            from vcorr.evaluation.sequences import label_sequences, trained

            check_davis(root)
            pred = out or Path(scratch) / "results"
            load, about = trained(weights_file(weights))
            with closing(label_sequences(root, pred, load, about, workers=workers, say=say)) as labelled:
                for done in labelled:
                    say(f"{done.name}: {done.frames} frames, {done.seconds:.0f} s")
                    if done.damaged:
                        say(f"{done.name}: {len(done.damaged)} damaged frames took the picture before them")
        assert pred is not None
        scores = evaluate_davis(root, pred, workers=workers)
    if as_json:
        typer.echo(json.dumps(scores.to_json(), indent=2))
    else:
        table([scores.columns, *scores.rows()])
