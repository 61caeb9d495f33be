"""Does every recipe learn, and where does the time of a step go?

    python benchmarks/recipes.py VIDEOS [--steps 200] [--rows corrflow corrflow-gray] [--out DIR]

Two tables. *Learning*: each row of docs/recipes.md and each shipped recipe is trained at a small size (``SMALL``, more
by --set) for --steps steps a stage; the mean loss of the first tenth of the steps and of the last; and, since clips
differ more than a second stage improves, the mean loss of as many batches that were not trained on, with the weights
that the stage began with and with those that it ended with, and in how many of them it is lower. *Shares*: each
shipped recipe as it is, network, clips and bank of full size, for --share-steps steps of --share-batch clips. Rows that
only read labels otherwise train alike; they are named together and trained once. --out, a new folder, keeps run folders
(each with report.html) and recipes.json, which has every loss. Exit code 1 if a loss did not fall, either way.

Shares are of a step's seconds. Encoder: its forward calls, and backward from the first gradient that reaches it;
operators: those of vcorr.kernels, forward and backward, on a CPU, and LIIR's prior, which works out every tap's weight;
data: waiting for clips; rest: losses, colours, optimiser.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import re
import shlex
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from vcorr import rng as random
from vcorr.config import flatten
from vcorr.files import replacing
from vcorr.kernels.cpu import negatives as negatives
from vcorr.kernels.cpu import reading as window
from vcorr.machine import versions
from vcorr.matching import compactness
from vcorr.model import color, network
from vcorr.training import recipe
from vcorr.training import step as learner
from vcorr.training.clips.cut import Clips
from vcorr.training.clips.dataset import scan
from vcorr.training.loop import TrainOptions, train

PAGE = Path(__file__).parent.parent / "docs" / "recipes.md"
SMALL = {
    **{"net.widths": "16,32,64,64", "net.features": "32", "jitter.share": "0.1"},
    **{"batch": "4", "warmup": "10", "cooldown": "0.3", "size": "64", "smallest": "64", "read": "96"},
}  # not the rates: at ten times its own, a second stage undoes what the first has learned
LONGEST = 15  # frames that a memory clip is taken from, at the small size: most training clips are short
OPERATORS: tuple[tuple[Any, str], ...] = (
    (window, "read"), (window, "read_backward"), (negatives, "logsumexp"),
    (compactness, "loss"),  # its forward pass works out its gradient too
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Row:
    """A training: the names it has on the page, the recipe and what it overrides."""

    names: tuple[str, ...]
    recipe: str
    overrides: tuple[str, ...]


def rows(page: str) -> list[Row]:
    """Every row of the page with a command ``vcorr train RECIPE KEY=VALUE ... --data NAME``, by its first column."""
    found = []
    for name, command in re.findall(r"^\| *([^|]+?) *\| *`vcorr train ([^`]+)`", page, re.MULTILINE):
        words = shlex.split(command)
        for option in ("--data", "--init", "--out"):
            if option in words:
                at = words.index(option)
                del words[at : at + 2]
        found.append(Row((name,), words[0], tuple(words[1:])))
    return found


def every_row() -> list[Row]:
    """The page's rows and the shipped recipes; those that train alike are one."""
    listed = rows(PAGE.read_text())
    taken = {row.recipe for row in listed}
    alike: dict[tuple[Any, ...], Row] = {}
    for row in [*listed, *(Row((name,), name, ()) for name in recipe.shipped() if name not in taken)]:
        first = alike.setdefault(trained(row), row)
        if first is not row:
            alike[trained(row)] = dataclasses.replace(first, names=first.names + row.names)
    return list(alike.values())


def trained(row: Row) -> tuple[Any, ...]:
    """Recipe and configuration, without how long it trains and what only reading uses."""
    keys = flatten(recipe.load(row.recipe, list(row.overrides)).config)
    left_out = {k for k, v in keys.items() if k.startswith("inference.") or (k.endswith(".steps") and v)}
    return row.recipe, *((k, v) for k, v in keys.items() if k not in left_out)


def small(row: Row, steps: int, more: list[str]) -> recipe.Experiment:
    """The row at a small size: keys by their whole name or their last part; the row's own overrides stay."""
    keys = flatten(recipe.load(row.recipe, list(row.overrides)).config)
    pairs = {key: SMALL.get(key) or SMALL.get(key.rpartition(".")[2]) for key in keys}
    pairs |= {key: str(steps) for key, value in keys.items() if key.endswith(".steps") and value}  # 0: left out
    pairs |= {key: str(LONGEST) for key, value in keys.items() if key.endswith(".frames") and value > LONGEST}
    pairs |= {key: value for key, _, value in (pair.partition("=") for pair in more) if key in keys}
    own = {override.partition("=")[0] for override in row.overrides}
    kept = [f"{k}={v}" for k, v in pairs.items() if v and (k not in own or k.endswith(".steps"))]
    return recipe.load(row.recipe, [*row.overrides, *kept])


# --- learning -------------------------------------------------------------------------------------------------------


def learn(row: Row, data: Path, out: Path, steps: int, more: list[str]) -> list[dict[str, Any]]:
    """Train a row; for each stage the mean loss of its first and last tenth, and of new clips before and after it."""
    began = time.monotonic()
    experiment, kept = small(row, steps, more), {}
    stages = experiment.recipe.stages
    watched = tuple(keeping(stage, kept) for stage in stages)
    experiment = dataclasses.replace(experiment, recipe=dataclasses.replace(experiment.recipe, stages=watched))
    train(experiment, data, out, options=TrainOptions(log_every=1, save_every=1e9))
    seconds = time.monotonic() - began
    losses: dict[str, list[float]] = {stage.name: [] for stage in stages if stage.schedule.steps}
    for line in map(json.loads, (out / "metrics.jsonl").read_text().splitlines()):
        if line["loss"] is not None:
            losses[line["stage"]].append(line["loss"])
    result, footage = [], scan(data)
    for stage in stages:
        if not (values := losses.get(stage.name)):
            continue
        tenth = max(1, len(values) // 10)
        before, after = on_new_clips(
            stage, kept[stage.name], Clips(footage, stage.clips, experiment.config.seed), tenth
        )
        line = {"row": ", ".join(row.names), "recipe": row.recipe, "overrides": row.overrides, "stage": stage.name}
        line |= {"first": statistics.fmean(values[:tenth]), "last": statistics.fmean(values[-tenth:])}
        line |= {"before": statistics.fmean(before), "after": statistics.fmean(after), "batches": tenth}
        line |= {"lower": sum(b < a for a, b in zip(before, after, strict=True))}
        line |= {"falls": line["last"] < line["first"] and line["after"] < line["before"]}
        result.append(line | {"losses": values, "run_seconds": seconds})
    return result


def keeping(stage: recipe.Stage, kept: dict[str, list[recipe.State]]) -> recipe.Stage:
    """The stage, which leaves behind the state that it began with and, as the last step made it, its own."""

    def loss(state: recipe.State, *rest: Any) -> recipe.Out:
        first = kept[stage.name][0] if stage.name in kept else copy.deepcopy(state)
        kept[stage.name] = [first, state]  # whose weights the optimiser and the slow encoder's average write to
        return stage.loss(state, *rest)

    return dataclasses.replace(stage, loss=loss)


@torch.no_grad()
def on_new_clips(
    stage: recipe.Stage, states: list[recipe.State], clips: Clips, batches: int
) -> tuple[list[float], list[float]]:
    """The losses of the batches that would come next, in each of two states, beside the same bank and draws."""
    size, losses = stage.schedule.batch, ([], [])
    for step in range(stage.schedule.steps, stage.schedule.steps + batches):
        samples = range(step * size, (step + 1) * size)
        pictures, videos = clips.batch(samples)
        batch = recipe.Batch(color.from_uint8(pictures), tuple(samples), videos)
        for state, found in zip(states, losses, strict=True):
            alike = dataclasses.replace(state, extra=states[-1].extra)
            found.append(float(stage.loss(alike, batch, random.generator(0, "new clips", step), 1.0).loss))
    return losses


# --- shares ---------------------------------------------------------------------------------------------------------


class Watch:
    """Seconds by (stage, part); the first step of a stage warms up and is not counted."""

    def __init__(self) -> None:
        self.seconds: dict[str, Counter[str]] = {}
        self.steps: Counter[str] = Counter()
        self.forward = self.operators = 0.0
        self.arrived: float | None = None  # when the first gradient of this step came to the encoder
        self.finished = 0.0  # when the last one left it
        self.hooked: set[int] = set()

    def step(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        """A ``Learner.step`` that is watched."""

        def step(this: learner.Learner, number: int, parts: Iterable[recipe.Batch]) -> Any:
            if number == 0:
                return plain(this, number, parts)
            waited = Counter[str]()
            self.forward, self.operators, self.arrived, self.finished = 0.0, 0.0, None, 0.0
            began = time.perf_counter()
            taken = plain(this, number, _timed(parts, waited))
            total = time.perf_counter() - began
            backward = self.finished - self.arrived if self.arrived is not None else 0.0
            spent = {"encoder": self.forward + backward, "operators": self.operators, "data": waited["data"]}
            self.seconds.setdefault(this.stage.name, Counter()).update(spent | {"total": total})
            self.steps[this.stage.name] += 1
            return taken

        return step

    def apply(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        """A ``network.apply`` that is watched."""

        def apply(cfg: Any, params: dict[str, torch.Tensor], *args: Any, **options: Any) -> Any:
            began = time.perf_counter()
            features, stats = plain(cfg, params, *args, **options)
            self.forward += time.perf_counter() - began
            stem = params["stem.conv.weight"]
            if features.requires_grad:
                features.register_hook(self._gradient_arrives)
            if stem.requires_grad and stem.is_leaf and id(stem) not in self.hooked:
                self.hooked.add(id(stem))
                stem.register_post_accumulate_grad_hook(self._gradient_leaves)
            return features, stats

        return apply

    def operator(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        """An operator, one direction of it, that is watched."""

        def operator(*args: Any, **options: Any) -> Any:
            began = time.perf_counter()
            result = plain(*args, **options)
            self.operators += time.perf_counter() - began
            return result

        return operator

    def _gradient_arrives(self, gradient: torch.Tensor) -> None:
        self.arrived = self.arrived or time.perf_counter()

    def _gradient_leaves(self, parameter: torch.Tensor) -> None:
        self.finished = time.perf_counter()

    def shares(self) -> list[dict[str, Any]]:
        lines = []
        for stage, spent in self.seconds.items():
            part = {name: spent[name] / spent["total"] for name in ("encoder", "operators", "data")}
            seconds = spent["total"] / self.steps[stage]
            lines.append({"stage": stage, "step_seconds": seconds} | part | {"rest": 1 - sum(part.values())})
        return lines


def _timed(parts: Iterable[recipe.Batch], waited: Counter[str]) -> Iterator[recipe.Batch]:
    source = iter(parts)
    while True:
        began = time.perf_counter()
        part = next(source, None)
        waited["data"] += time.perf_counter() - began
        if part is None:
            return
        yield part


@contextmanager
def watching(watch: Watch) -> Iterator[None]:
    wraps = [(learner.Learner, "step", watch.step), (network, "apply", watch.apply)]
    wraps += [(owner, name, watch.operator) for owner, name in OPERATORS]
    plain = [getattr(owner, name) for owner, name, _ in wraps]
    for (owner, name, wrap), function in zip(wraps, plain, strict=True):
        setattr(owner, name, wrap(function))
    try:
        yield
    finally:
        for (owner, name, _), function in zip(wraps, plain, strict=True):
            setattr(owner, name, function)


def with_full_bank(stage: recipe.Stage) -> recipe.Stage:
    """The stage from where its bank of negatives, if it has one, is full, as it is for most of a training."""

    def enter(state: recipe.State) -> recipe.State:
        extra = stage.enter(state).extra
        if "bank.pushed" in extra:
            features = torch.randn(extra["bank.features"].shape, generator=random.generator(0, "bank"))
            extra = extra | {"bank.features": features, "bank.pushed": torch.tensor(len(features))}
        return dataclasses.replace(stage.enter(state), extra=extra)

    return dataclasses.replace(stage, enter=enter)


def share(name: str, data: Path, out: Path, steps: int, batch: int, more: list[str]) -> list[dict[str, Any]]:
    """Where a step's time goes in each stage of a shipped recipe, at its own sizes."""
    keys = flatten(recipe.load(name).config)
    pairs = {key: str(steps) for key in keys if key.endswith(".steps")}
    pairs |= {key: str(batch) for key in keys if key.endswith(".batch")}
    pairs |= {key: str(LONGEST) for key, value in keys.items() if key.endswith(".frames") and value > LONGEST}
    pairs |= {key: value for key, _, value in (pair.partition("=") for pair in more) if key in keys}
    watch = Watch()
    with watching(watch):
        experiment = recipe.load(name, [f"{key}={value}" for key, value in pairs.items()])
        stages = tuple(map(with_full_bank, experiment.recipe.stages))
        experiment = dataclasses.replace(experiment, recipe=dataclasses.replace(experiment.recipe, stages=stages))
        train(experiment, data, out, options=TrainOptions(save_every=1e9))
    return [{"recipe": name} | line for line in watch.shares()]


# --- the whole ------------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="VIDEOS")
    parser.add_argument("--rows", nargs="+", metavar="ROW", help="only these; default: all")
    parser.add_argument("--steps", type=int, default=200, help="of a stage, at the small size; 0: no learning")
    parser.add_argument("--share-steps", type=int, default=10, help="of a stage, at full size; 1 or less: no shares")
    parser.add_argument("--share-batch", type=int, default=4)
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="for every recipe that has the key")
    parser.add_argument("--out", type=Path, help="keep the runs and recipes.json here")
    parser.add_argument("--threads", type=int)
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    if given.out and given.out.exists() and any(given.out.iterdir()):
        parser.error(f"{given.out} is not empty: a stage is compared with its beginning, so runs are not gone on with")
    listed = every_row()
    names = [name for row in listed for name in row.names]
    if unknown := set(given.rows or names) - set(names):
        parser.error(f"no row {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    chosen = [row for row in listed if not given.rows or set(row.names) & set(given.rows)]
    document: dict[str, Any] = {"versions": versions(), "options": {k: str(v) for k, v in vars(given).items()}}
    learned: list[dict[str, Any]] = []
    shares: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="vcorr-") as scratch:
        out = given.out or Path(scratch)
        if given.steps > 0:
            print(f"{'stage':9} {'first':>7} {'last':>7} {'before':>7} {'after':>7} {'lower':>7}  row", flush=True)
            for row in chosen:
                for line in learn(row, given.data, out / row.names[0], given.steps, given.set):
                    learned.append(line)
                    numbers = " ".join(f"{line[name]:7.4f}" for name in ("first", "last", "before", "after"))
                    lower = f"{line['lower']}/{line['batches']}"
                    print(f"{line['stage']:9} {numbers} {lower:>7}  {line['row']}", flush=True)
        if given.share_steps > 1:
            print(f"\n{'s/step':>8} {'encoder':>8} {'operators':>9} {'data':>6} {'rest':>6}  recipe stage", flush=True)
            for name in dict.fromkeys(row.recipe for row in chosen):
                folder = out / "shares" / name
                for line in share(name, given.data, folder, given.share_steps, given.share_batch, given.set):
                    shares.append(line)
                    numbers = f"{line['encoder']:8.0%} {line['operators']:9.0%} {line['data']:6.0%} {line['rest']:6.0%}"
                    print(f"{line['step_seconds']:8.2f} {numbers}  {name} {line['stage']}", flush=True)
        if given.out:
            with replacing(given.out / "recipes.json") as file:
                file.write(json.dumps(document | {"learning": learned, "shares": shares}, indent=1).encode())
    sys.exit(not all(line["falls"] for line in learned))


if __name__ == "__main__":
    main()
