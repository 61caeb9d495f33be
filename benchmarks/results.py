"""The results table: every method trained at one equal budget, beside its paper's score.

    python -m benchmarks.results train DATA DAVIS [--images DIR] [--budget 12000] [--only ROW ...] [--seeds 2]
                                       [--sequence NAME ...]
    python -m benchmarks.results table > docs/results.md

``train`` fills runs/results, one folder a row and seed, and scores each on DAVIS, a set in DAVIS's layout, by one
thread. Stopped, it goes on where it was, and a row that is there is left alone; a row that fails is said at the end.
Every row has the same clips, the same encoder (``COMMON``) and the same number of images through an encoder, forward,
slow copies and second views included; the rest is the recipe's own. The images of a step are counted, not derived.
Rows of two stages spend ``FIRST`` of the budget on the first.
``table`` reads what is there and prints a page in Markdown, twice the same; a row without runs says so.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import platform
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RUNS = Path(__file__).parents[1] / "runs" / "results"
COMMON = ("net=pyramid", "net.stem=16", "net.widths=32,64,128", "net.lateral=48", "net.features=32")
SIZES = {"size": "128", "smallest": "96", "read": "240", "cooldown": "0.3"}
WARMUP = 50  # steps, a tenth of a stage at most
BATCH = {"pairs": "8", "triplets": "6"}
LATER_BATCH = "4"  # of a second stage
FIRST = 0.75
FRAMES = 12  # of the piece that a memory clip is taken from: many clips are as short
SEEDS = 2


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        some: so many of the data's folders or, with ``images``, of the still images; 0 for all folders.
        images: read the folder of still images instead.
        paper: J&F, J, F and training data as published; None where nothing is comparable.
    """

    recipe: str
    overrides: tuple[str, ...] = ()
    some: int = 0
    images: bool = False
    paper: tuple[str, str, str, str] | None = None


PLAIN = ("peaks=0", "inference.compactness=0")
LEARNED = ("net.position.kind=1dape", "net.position.size=64")
PAIRS = ("memory.steps=0",)
ROWS = {
    "corrflow": Row("corrflow", paper=("49.5", "47.7", "51.3", "Kinetics")),
    "mast": Row("mast", paper=("59.6", "57.3", "61.8", "YouTube-VOS")),
    "mast_memory": Row("mast_memory", paper=("63.8", "61.2", "66.3", "YouTube-VOS")),
    "mast_momentum, pairs": Row("mast_momentum", PAIRS, paper=("60.4", "58.7", "62.0", "YouTube-VOS")),
    "mast_momentum": Row("mast_momentum", paper=("68.2", "66.5", "69.9", "YouTube-VOS")),
    "liir, base": Row("liir", ("bank.frames=0", *PLAIN), paper=("65.3", "", "", "YouTube-VOS")),
    "liir, inter": Row("liir", PLAIN, paper=("68.7", "", "", "YouTube-VOS")),
    "liir, positions": Row("liir", ("bank.frames=0", *PLAIN, *LEARNED), paper=("66.9", "", "", "YouTube-VOS")),
    "liir, compact": Row("liir", ("bank.frames=0",), paper=("68.4", "", "", "YouTube-VOS")),
    "liir": Row("liir", LEARNED, paper=("72.1", "69.7", "74.5", "YouTube-VOS")),
    "two_views": Row("two_views"),
    "default": Row("default"),
}
LOW = {
    "all clips": Row("mast_momentum", paper=("68.2", "66.5", "69.9", "YouTube-VOS")),
    "100 clips": Row("mast_momentum", some=100, paper=("64.0", "62.5", "65.5", "100 videos")),
    "50 clips": Row("mast_momentum", some=50),
    "10 clips": Row("mast_momentum", some=10),
    "100 stills": Row("images", some=100, images=True, paper=("61.6", "60.0", "63.1", "100 images")),
}
QUESTIONS = (  # (row, row that it adds something to)
    ("mast_memory", "mast"),
    ("mast_momentum", "mast_momentum, pairs"),
    ("mast_momentum", "mast_memory"),
    ("liir, inter", "liir, base"),
    ("liir, positions", "liir, base"),
    ("liir, compact", "liir, base"),
    ("liir", "liir, base"),
    ("default", "two_views"),
)
CORRFLOW = {"camel": 59.4, "drift-chicane": 3.9, "drift-straight": 27.1, "goat": 71.1}  # J of the paper, on Kinetics


# --- train ----------------------------------------------------------------------------------------------------------


def overrides(row: Row, steps: dict[str, int], seed: int) -> list[str]:
    """What a row is trained with: the equal sizes where the recipe has the keys, its own overrides, steps by stage."""
    from vcorr.training import recipe

    keys = recipe.flatten(recipe.load(row.recipe).config)
    pairs = dict(pair.split("=", 1) for pair in COMMON) | {"net.unit": str(keys["net.unit"]).lower()}
    pairs |= {key: SIZES[last] for key in keys if (last := key.rpartition(".")[2]) in SIZES}
    for key, value in keys.items():
        stage, _, last = key.rpartition(".")
        if last == "batch":
            pairs[key] = BATCH.get(stage, LATER_BATCH)
        if last == "frames" and stage.endswith("clips") and value > FRAMES:
            pairs[key] = str(FRAMES)
    pairs |= dict(pair.split("=", 1) for pair in row.overrides)
    for stage, count in steps.items():
        pairs |= {f"{stage}.steps": str(count), f"{stage}.warmup": str(min(WARMUP, count // 10))}
    pairs["seed"] = str(seed)
    return [f"{key}={value}" for key, value in pairs.items()]


def steps_of(row: Row, data: Path, budget: int) -> tuple[dict[str, int], int]:
    """Steps by stage for so many images, and the images that they are."""
    from vcorr.training import recipe

    off = {pair.split(".")[0] for pair in row.overrides if pair.endswith(".steps=0")}
    keys = recipe.flatten(recipe.load(row.recipe).config)
    stages = [s.name for s in recipe.load(row.recipe).recipe.stages if s.name not in off and keys[f"{s.name}.steps"]]
    none = dict.fromkeys(off, 0)
    images, before = {}, 0
    for stage in stages:  # one step of each stage so far
        ran = {name: int(name in stages[: stages.index(stage) + 1]) for name in stages}
        total = images_of(row, data, none | ran)
        images[stage], before = total - before, total
    share = {stage: 1.0 if len(stages) == 1 else (1 - FIRST) / (len(stages) - 1) for stage in stages}
    if len(stages) > 1:
        share[stages[0]] = FIRST
    steps = {stage: max(1, round(budget * share[stage] / images[stage])) for stage in stages}
    return none | steps, sum(steps[stage] * images[stage] for stage in stages)


def images_of(row: Row, data: Path, steps: dict[str, int]) -> int:
    """The images that pass an encoder in so many steps."""
    from vcorr.training import recipe
    from vcorr.training.loop import TrainOptions, train

    with tempfile.TemporaryDirectory(prefix="vcorr-") as scratch, counted() as images:
        experiment = recipe.load(row.recipe, overrides(row, steps, 0))
        train(experiment, data, Path(scratch, "run"), options=TrainOptions(log_every=1, save_every=1e9))
    return sum(images)


@contextmanager
def counted() -> Iterator[list[int]]:
    """A list of the images of each call of the encoder."""
    from vcorr.model import pyramid

    images: list[int] = []
    apply = pyramid.apply

    def noted(cfg: Any, params: Any, stats: Any, x: Any, **more: Any) -> Any:
        images.append(len(x))
        return apply(cfg, params, stats, x, **more)

    pyramid.apply = noted  # type: ignore[assignment]
    try:
        yield images
    finally:
        pyramid.apply = apply


def folder_of(runs: Path, name: str, seed: int) -> Path:
    return runs / re.sub(r"[^a-z0-9]+", "-", name) / str(seed)


def some_of(data: Path, count: int, at: Path, *, images: bool = False) -> Path:
    """A folder of so many of the data's folders (links) or images (copies), drawn by a fixed seed."""
    from vcorr.media.image import FRAME_SUFFIXES

    def wanted(path: Path) -> bool:
        there = path.is_file() and path.suffix.lower() in FRAME_SUFFIXES if images else path.is_dir()
        return there and not path.name.startswith(".")

    found = sorted(path for path in data.iterdir() if wanted(path))
    if len(found) < count:
        raise SystemExit(f"{data} has {len(found)} {'images' if images else 'folders'}, and {count} are needed")
    shutil.rmtree(at, ignore_errors=True)
    at.mkdir(parents=True)
    for path in random.Random(0).sample(found, count):  # noqa: S311 (to be the same each time)
        if images:
            shutil.copyfile(path, at / path.name)
        else:
            (at / path.name).symlink_to(path.resolve())
    return at


class FailedError(Exception):
    """A command failed; it said why."""


def train_row(name: str, row: Row, seed: int, given: argparse.Namespace) -> None:
    """Trains and scores a row, unless that is done.

    Raises:
        FailedError: training or scoring failed.
        SystemExit: stopped by a signal, after saving.
    """
    out = folder_of(given.runs, name, seed)
    done = out / "result.json"
    if done.is_file():
        print(f"{name}, seed {seed}: done before", flush=True)
        return
    data = given.images if row.images else given.data
    if data is None:
        raise FailedError("needs --images")
    if row.some:
        at = given.runs / "data" / f"{row.some}-{'images' if row.images else 'folders'}"
        data = some_of(data, row.some, at, images=row.images)
    out.mkdir(parents=True, exist_ok=True)
    plan = out / "plan.json"
    if not plan.is_file():
        steps, images = steps_of(row, data, given.budget)
        plan.write_text(json.dumps({"steps": steps, "images": images, "budget": given.budget}))
    planned = json.loads(plan.read_text())
    pairs = overrides(row, planned["steps"], seed)
    timed(out / "trained.txt", "train", row.recipe, *pairs, "--data", data, "--out", out / "run", "--device", "cpu")
    which = ("--root", given.davis, "--weights", out / "run" / "weights.safetensors", "--out", out / "labels")
    some = (word for name in given.sequence or () for word in ("--sequence", name))
    said = timed(out / "scored.txt", "evaluate", "davis", *which, *some, "--workers", 1, "--json")
    videos = json.loads((out / "run" / "config.json").read_text())["data"]
    result = planned | {
        "row": name, "recipe": row.recipe, "overrides": pairs, "seed": seed, "scores": json.loads(said),
        "hours": {part: float((out / f"{part}.txt").read_text()) / 3600 for part in ("trained", "scored")},
        "processor": processor(), "date": time.strftime("%Y-%m-%d"), "seen": seen(row, pairs),
        "data": {"name": (given.images if row.images else given.data).resolve().name}
        | {key: videos[key] for key in ("videos", "frames", "sha256")},
        "set": given.davis.resolve().name,
    }  # fmt: skip
    half = done.with_suffix(".part")
    half.write_text(json.dumps(result, indent=1))
    half.replace(done)
    shutil.rmtree(out / "labels", ignore_errors=True)
    print(f"{name}, seed {seed}: J&F {100 * result['scores']['j_and_f']:.1f}", flush=True)


def seen(row: Row, pairs: Sequence[str]) -> list[tuple[int, int]]:
    """(clips seen, frames of a clip) of each stage that has steps."""
    from vcorr.training import recipe

    stages = recipe.load(row.recipe, list(pairs)).recipe.stages
    return [(s.schedule.steps * s.schedule.batch, s.clips.length) for s in stages if s.schedule.steps]


def timed(file: Path, *words: object) -> str:
    """Runs a command, and adds its processor seconds to those in a file: of every part of a run that was stopped."""
    before = float(file.read_text()) if file.is_file() else 0.0
    began = os.times()
    try:
        return vcorr(*words)
    finally:
        ended = os.times()
        spent = ended.children_user - began.children_user + ended.children_system - began.children_system
        file.write_text(str(before + spent))


def vcorr(*words: object) -> str:
    """What a command prints, run by one thread. A signal to this process goes to the command, which saves and ends."""
    one = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "vcorr", *map(str, words)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=one, start_new_session=True)
    stopped = []

    def stop(number: int, frame: object) -> None:
        stopped.append(number)
        child.send_signal(number)

    old = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        said, _ = child.communicate()
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
    if stopped:
        raise SystemExit(75)
    if child.returncode:
        raise FailedError(f"vcorr {words[0]} ended with {child.returncode}")
    return said


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


# --- table ----------------------------------------------------------------------------------------------------------


def saved(runs: Path, names: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """The results of each row, by seed."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for path in sorted(runs.glob("*/*/result.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        if result["row"] in found:
            found[result["row"]].append(result)
    return found


def page(runs: Path) -> str:
    """The whole page, from saved runs alone.

    Raises:
        SystemExit: runs that cannot stand in one table.
    """
    main, low = saved(runs, list(ROWS)), saved(runs, list(LOW))
    every = [result for some in (*main.values(), *low.values()) for result in some]
    _check(every)
    low["all clips"] = low["all clips"] or main["mast_momentum"]
    parts = (_opening(every), _scores(main), _questions(main), _sequences(main), _curve(low))
    return "\n".join(line for part in parts for line in part) + "\n"


def _check(results: Sequence[dict[str, Any]]) -> None:
    """Budget, clips and scored sequences must be those of all rows."""
    whole = [r for r in results if not {**ROWS, **LOW}[r["row"]].some]
    for what, values in (
        ("budgets", {r["budget"] for r in results}),
        ("training data", {r["data"]["sha256"] for r in whole}),
        ("scored sequences", {tuple(s["name"] for s in r["scores"]["sequences"]) for r in results}),
    ):
        if len(values) > 1:
            raise SystemExit(f"runs of different {what} cannot stand in one table: give another --runs to some of them")


def _opening(results: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield "# Results: each method at one equal budget\n"
    yield "`python -m benchmarks.results table` prints this page from saved runs; `... results train` makes them.\n"
    if not results:
        yield "No run is saved yet.\n"
        return
    machines = sorted({result["processor"] for result in results})
    first, *_, last = sorted({result["date"] for result in results}) * 2
    trained, scored = (sum(result["hours"][part] for result in results) for part in ("trained", "scored"))
    least, most = (of(result["images"] for result in results) for of in (min, max))
    data = next((r["data"] for r in results if not {**ROWS, **LOW}[r["row"]].some), results[0]["data"])
    scores = results[0]["scores"]
    sequences = ", ".join(sequence["name"] for sequence in scores["sequences"])
    yield (
        f"Every row: the same clips ({data['name']}: {data['videos']:,} videos, {data['frames']:,} frames), the "
        f"encoder `{' '.join(COMMON)}`, crops of {SIZES['size']} pixels, and {results[0]['budget']:,} images through "
        f"an encoder (by whole steps {least:,} to {most:,}), those of slow copies and second views included. Loss, "
        f"learning rate and reading of labels are the recipe's. Scored on {results[0]['set']}: "
        f"{scores['objects']} objects, {scores['frames']:,} frames of {sequences}.\n"
    )
    yield (
        f"{len(results)} runs on {', '.join(machines)}, one thread, {first}{f' to {last}' if last != first else ''}: "
        f"{trained:.1f} hours of a core to train, {scored:.1f} to label and score. "
        "Papers trained for days on a GPU: their scores say what is comparable within a paper, not to ours.\n"
    )


def _scores(found: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    yield "J&F is the mean of the seeds, ± half the distance between the extremes; times 100. Hours are of one core.\n"
    yield (
        "| row | paper J&F (J, F), data | J&F | J | F | J recall | J decay | seeds | steps | seen | images | "
        "hours a run: train, score |"
    )
    yield "|---" * 12 + "|"
    for name, row in ROWS.items():
        paper = _paper(row)
        if not (results := found[name]):
            yield f"| {name} | {paper} | not run |" + " |" * 9
            continue
        scores = [result["scores"] for result in results]
        means = [
            f"{100 * statistics.fmean(float(s[of][what]) for s in scores):.1f}"
            for of, what in (("j", "mean"), ("f", "mean"), ("j", "recall"), ("j", "decay"))
        ]
        steps = " + ".join(f"{n:,}" for n in results[0]["steps"].values() if n)
        clips = " + ".join(
            f"{count:,} {'pairs' if frames == 2 else f'clips of {frames}'}" for count, frames in results[0]["seen"]
        )
        hours = ", ".join(
            f"{statistics.fmean(r['hours'][part] for r in results):.2f}" for part in ("trained", "scored")
        )
        yield (
            f"| {name} | {paper} | {_mean(results)} | {' | '.join(means)} | {len(results)} | {steps} | {clips} | "
            f"{results[0]['images']:,} | {hours} |"
        )
    yield ""


def _paper(row: Row) -> str:
    if row.paper is None:
        return ""
    j_and_f, j, f, data = row.paper
    return f"{j_and_f}{f' ({j}, {f})' if j else ''}, {data}"


def _values(results: Sequence[dict[str, Any]]) -> list[float]:
    return [100 * float(result["scores"]["j_and_f"]) for result in results]


def _mean(results: Sequence[dict[str, Any]]) -> str:
    values = _values(results)
    spread = f" ± {(max(values) - min(values)) / 2:.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.1f}{spread}"


def _questions(main: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    """What a row adds to another one, and what the spread of seeds does not tell apart."""
    several = {name: _values(results) for name, results in main.items() if len(results) > 1}
    spread = max((max(values) - min(values) for values in several.values()), default=None)
    yield "## What adds something\n"
    if spread is None:
        yield "No row has two seeds: no difference below can be told from chance.\n"
    else:
        yield (
            f"Seeds of one row ({', '.join(several)}) differ by up to {spread:.1f}. "
            f"What differs by no more is not told apart.\n"
        )
    yield "| row | against | paper | ours | |"
    yield "|---|---|---|---|---|"
    for name, base in QUESTIONS:
        papers = ROWS[name].paper, ROWS[base].paper
        paper = "" if None in papers else f"{float(papers[0][0]) - float(papers[1][0]):+.1f}"  # type: ignore[index]
        if lacking := [row for row in (name, base) if not main[row]]:
            yield f"| {name} | {base} | {paper} | not run: {' and '.join(lacking)} | |"
            continue
        gain = statistics.fmean(_values(main[name])) - statistics.fmean(_values(main[base]))
        told = "" if spread is None else "not told apart" if abs(gain) <= spread else "more" if gain > 0 else "less"
        yield f"| {name} | {base} | {paper} | {gain:+.1f} | {told} |"
    yield ""
    if spread is not None:
        ranked = sorted((statistics.fmean(_values(r)), name) for name, r in main.items() if r)
        near = [
            f"{name} and {other} ({high - low:.1f})"
            for (low, other), (high, name) in itertools.pairwise(ranked)
            if high - low <= spread
        ]
        yield f"Neighbours in the order of scores that are not told apart: {'; '.join(near) or 'none'}.\n"


def _sequences(main: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    """J of the sequences that CorrFlow's paper lists."""
    yield "## Sequences of CorrFlow's table\n"
    yield f"| J | {' | '.join(CORRFLOW)} |"
    yield "|---" * (1 + len(CORRFLOW)) + "|"
    yield f"| CorrFlow's paper, Kinetics | {' | '.join(f'{j:.1f}' for j in CORRFLOW.values())} |"
    for name, results in main.items():
        cells = []
        for sequence in CORRFLOW:
            js = [100 * s["j"]["mean"] for r in results for s in r["scores"]["sequences"] if s["name"] == sequence]
            cells.append(f"{statistics.fmean(js):.1f}" if js else "not scored" if results else "not run")
        yield f"| {name} | {' | '.join(cells)} |"
    yield ""


def _curve(low: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    """J&F against the number of clips, as a table with bars."""
    yield "## Little data\n"
    yield "mast_momentum on fewer videos, and images, its like on still images; the same number of images throughout.\n"
    yield "| data | frames | paper J&F (J, F), data | J&F | seeds | |"
    yield "|---|---|---|---|---|---|"
    for name, row in LOW.items():
        if not (results := low[name]):
            yield f"| {name} | | {_paper(row)} | not run | | |"
            continue
        bar = "█" * math.floor(statistics.fmean(_values(results)) / 2)
        frames = f"{results[0]['data']['frames']:,}"
        yield f"| {name} | {frames} | {_paper(row)} | {_mean(results)} | {len(results)} | {bar} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=RUNS)
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="train and score what is not done yet")
    train.add_argument("data", type=Path, help="folder of videos")
    train.add_argument("davis", type=Path, help="set in DAVIS's layout")
    train.add_argument("--images", type=Path, help="folder of still images, for the row that trains on them")
    train.add_argument("--budget", type=int, default=12_000, help="images through an encoder, each row")
    train.add_argument("--only", nargs="+", choices=[*ROWS, *LOW], metavar="ROW", help=", ".join([*ROWS, *LOW]))
    train.add_argument("--sequence", nargs="+", metavar="NAME", help="score these alone, the same for all rows")
    train.add_argument("--seeds", type=int, default=SEEDS, help="runs of each row")
    commands.add_parser("table", help="print the page")
    given = parser.parse_args()
    if given.command == "table":
        print(page(given.runs), end="")
        return
    os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported
    rows = {**ROWS, **{name: row for name, row in LOW.items() if name != "all clips"}}
    if "all clips" in (given.only or ()):
        raise SystemExit("all clips is the row mast_momentum")
    for plan in given.runs.glob("*/*/plan.json"):
        if (other := json.loads(plan.read_text())["budget"]) != given.budget:
            raise SystemExit(f"{plan.parent} was begun with a budget of {other} images: give that, or another --runs")
    failed = []
    for seed in range(given.seeds):  # one of each row before the second of any
        for name in given.only or rows:
            try:
                train_row(name, rows[name], seed, given)
            except FailedError as error:
                failed.append(f"{name}, seed {seed}: {error}")
                print(failed[-1], file=sys.stderr, flush=True)
    if failed:
        raise SystemExit("\n".join(["not done:", *failed]))


if __name__ == "__main__":
    main()
