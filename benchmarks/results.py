"""The results table: every method trained at one equal budget, beside its paper's score.

    python -m benchmarks.results train DATA DAVIS [--images DIR] [--budget 12000] [--only ROW ...] [--seeds 2]
    python -m benchmarks.results table > docs/results.md

``train`` fills runs/results, one folder a row and seed; stopped, it goes on where it was, and a row that is there is
left alone. Every row has the same clips, the same encoder (``COMMON``) and the same number of images through an
encoder, forward, slow copies and second views included; the rest is the recipe's own. The images of a step are
counted, not derived. Rows of two stages spend ``FIRST`` of the budget on the first. Then DAVIS, a set in DAVIS's
layout, is scored.
``table`` reads what is there and prints a page in Markdown, twice the same; a row without runs says so.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import platform
import random
import re
import shutil
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
SIZES = {"size": "128", "smallest": "96", "read": "240", "warmup": "50", "cooldown": "0.3"}
BATCH = {"pairs": "8", "triplets": "6"}
LATER_BATCH = "4"  # of a second stage
FIRST = 0.75
FRAMES = 12  # of the piece that a memory clip is taken from: many clips are as short
SEEDS = 2


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        clips: so many of the data's folders; 0 for all. images: read the folder of still images instead.
        paper: J&F, J, F and training data as published; None where nothing is comparable.
    """

    recipe: str
    overrides: tuple[str, ...] = ()
    clips: int = 0
    images: bool = False
    paper: tuple[str, str, str, str] | None = None


PLAIN = ("peaks=0", "inference.compactness=0", "inference.roi_search=15")
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
    "100 clips": Row("mast_momentum", clips=100, paper=("64.0", "62.5", "65.5", "100 videos")),
    "50 clips": Row("mast_momentum", clips=50),
    "10 clips": Row("mast_momentum", clips=10),
    "100 stills": Row("images", images=True, paper=("61.6", "60.0", "63.1", "100 images")),
}
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
    pairs |= {f"{stage}.steps": str(count) for stage, count in steps.items()} | {"seed": str(seed)}
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


def some_clips(data: Path, count: int, at: Path) -> Path:
    """A folder of links to so many of the data's folders, drawn by a fixed seed."""
    folders = sorted(p for p in data.iterdir() if p.is_dir() and not p.name.startswith("."))
    chosen = random.Random(0).sample(folders, min(count, len(folders)))  # noqa: S311 (to be the same each time)
    shutil.rmtree(at, ignore_errors=True)
    at.mkdir(parents=True)
    for folder in chosen:
        (at / folder.name).symlink_to(folder.resolve())
    return at


def train_row(name: str, row: Row, seed: int, given: argparse.Namespace) -> None:
    """Train and score a row, unless that is done."""
    out = folder_of(given.runs, name, seed)
    done = out / "result.json"
    if done.is_file():
        print(f"{name}, seed {seed}: done before", flush=True)
        return
    data = given.images if row.images else given.data
    if data is None:
        print(f"{name}: needs --images", flush=True)
        return
    if row.clips:
        data = some_clips(data, row.clips, given.runs / "data" / str(row.clips))
    out.mkdir(parents=True, exist_ok=True)
    plan = out / "plan.json"
    if not plan.is_file():
        steps, images = steps_of(row, data, given.budget)
        plan.write_text(json.dumps({"steps": steps, "images": images, "budget": given.budget}))
    planned = json.loads(plan.read_text())
    if planned["budget"] != given.budget:
        raise SystemExit(f"{out} was begun with a budget of {planned['budget']} images: give that, or another --runs")
    began = time.monotonic()
    try:
        pairs = overrides(row, planned["steps"], seed)
        vcorr("train", row.recipe, *pairs, "--data", data, "--out", out / "run", "--device", "cpu")
    finally:  # of every part of a run that was stopped
        spent = out / "seconds.txt"
        before = float(spent.read_text()) if spent.is_file() else 0.0
        spent.write_text(str(before + time.monotonic() - began))
    weights = out / "run" / "weights.safetensors"
    said = vcorr("evaluate", "davis", "--root", given.davis, "--weights", weights, "--out", out / "labels", "--json")
    result = planned | {
        "row": name, "recipe": row.recipe, "overrides": pairs, "seed": seed, "scores": json.loads(said),
        "hours": float(spent.read_text()) / 3600, "processor": processor(), "date": time.strftime("%Y-%m-%d"),
        "samples": samples(row, planned["steps"], pairs),
    }  # fmt: skip
    half = done.with_suffix(".part")
    half.write_text(json.dumps(result, indent=1))
    half.replace(done)
    shutil.rmtree(out / "labels", ignore_errors=True)
    print(f"{name}, seed {seed}: J&F {100 * result['scores']['j_and_f']:.1f}", flush=True)


def samples(row: Row, steps: dict[str, int], pairs: Sequence[str]) -> int:
    """Clips seen."""
    given = dict(pair.split("=", 1) for pair in pairs)
    return sum(count * int(given[f"{stage}.batch"]) for stage, count in steps.items())


def vcorr(*words: object) -> str:
    done = subprocess.run([sys.executable, "-m", "vcorr", *map(str, words)], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(done.returncode)
    return done.stdout


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
    """The whole page, from saved runs alone."""
    main, low = saved(runs, list(ROWS)), saved(runs, list(LOW))
    every = [result for some in (*main.values(), *low.values()) for result in some]
    low["all clips"] = low["all clips"] or main["mast_momentum"]
    return "\n".join([*_opening(every), *_scores(ROWS, main), *_apart(main), *_sequences(main), *_curve(low)]) + "\n"


def _opening(results: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield "# Results: each method at one equal budget\n"
    yield "`python -m benchmarks.results table` prints this page from saved runs; `... results train` makes them.\n"
    if not results:
        yield "No run is saved yet.\n"
        return
    budgets = sorted({result["budget"] for result in results})
    machines = sorted({result["processor"] for result in results})
    dates = sorted({result["date"] for result in results})
    hours = sum(result["hours"] for result in results)
    yield (
        f"Every row: the same clips, the encoder `{' '.join(COMMON)}`, {' or '.join(f'{b:,}' for b in budgets)} "
        f"images through an encoder. {len(results)} runs, {hours:.1f} hours on {', '.join(machines)}, {dates[0]} to "
        f"{dates[-1]}. "
        "Papers trained for days on a GPU: their scores say what is comparable within a paper, not to ours.\n"
    )


def _scores(rows: dict[str, Row], found: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    yield "J&F is the mean of the seeds, ± half the distance between the extremes; times 100.\n"
    yield (
        "| row | paper J&F (J, F), data | J&F | J | F | J recall | J decay | seeds | steps | clips seen | images | "
        "hours a run |"
    )
    yield "|---" * 12 + "|"
    for name, row in rows.items():
        paper = _paper(row)
        if not (results := found[name]):
            yield f"| {name} | {paper} | not run |" + " |" * 9
            continue
        scores = [result["scores"] for result in results]
        means = [
            f"{100 * statistics.fmean(float(s[of][what]) for s in scores):.1f}"
            for of, what in (("j", "mean"), ("f", "mean"), ("j", "recall"), ("j", "decay"))
        ]
        steps = " + ".join(str(n) for n in results[0]["steps"].values() if n)
        yield (
            f"| {name} | {paper} | {_mean(results)} | {' | '.join(means)} | {len(results)} | {steps} | "
            f"{results[0]['samples']:,} | {results[0]['images']:,} | "
            f"{statistics.fmean(r['hours'] for r in results):.2f} |"
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


def _apart(main: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    """Neighbours in the order of scores that the spread of seeds does not tell apart."""
    several = [_values(results) for results in main.values() if len(results) > 1]
    if not several:
        return
    spread = max(max(values) - min(values) for values in several)
    ranked = sorted((statistics.fmean(_values(r)), name) for name, r in main.items() if r)
    near = [
        f"{name} and {other} ({high - low:.1f})"
        for (low, other), (high, name) in itertools.pairwise(ranked)
        if high - low <= spread
    ]
    yield f"Two seeds differ by up to {spread:.1f}. Not told apart by that: {'; '.join(near) or 'no neighbours'}.\n"


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
            cells.append(f"{statistics.fmean(js):.1f}" if js else "")
        if any(cells):
            yield f"| {name} | {' | '.join(cells)} |"
    yield ""


def _curve(low: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    """J&F against the number of clips, as a table with bars."""
    yield "## Little data\n"
    yield "| data | paper J&F (J, F), data | J&F | |"
    yield "|---|---|---|---|"
    for name, row in LOW.items():
        results = low[name]
        bar = "█" * math.floor(statistics.fmean(_values(results)) / 2) if results else ""
        yield f"| {name} | {_paper(row)} | {_mean(results) if results else 'not run'} | {bar} |"


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
    train.add_argument("--seeds", type=int, default=SEEDS, help="runs of each row")
    commands.add_parser("table", help="print the page")
    given = parser.parse_args()
    if given.command == "table":
        print(page(given.runs), end="")
        return
    rows = {**ROWS, **{name: row for name, row in LOW.items() if name != "all clips"}}
    for seed in range(given.seeds):  # one of each row before the second of any
        for name in given.only or rows:
            if name == "all clips":
                raise SystemExit("all clips is the row mast_momentum")
            train_row(name, rows[name], seed, given)


if __name__ == "__main__":
    main()
