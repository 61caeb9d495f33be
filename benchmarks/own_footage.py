"""The tutorial of docs/training.md, followed and measured: do weights refined on one's own videos make better masks?

    python benchmarks/own_footage.py FOOTAGE LABELLED --out DIR [--steps 1000] [KEY=VALUE ...]

Prepares FOOTAGE, labels and scores the clips of LABELLED (DAVIS's layout) with the weights that come with vcorr, trains
their recipe on from them on the footage, scores again, and prints the table. What is there already in DIR is kept, so a
run that was stopped goes on with the same command. FOOTAGE may hold the videos of LABELLED: training sees no label.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from vcorr.model.weights import load_weights

RATE = ("pairs.lr=3e-4", "pairs.warmup=20")  # those of the tutorial


def vcorr(*words: object) -> str:
    """Run a command as the tutorial has it; what it prints."""
    print("vcorr", *words, file=sys.stderr)
    return subprocess.run(
        [sys.executable, "-m", "vcorr", *map(str, words)], stdout=subprocess.PIPE, text=True, check=True
    ).stdout


def scores(root: Path, weights: Path | str, out: Path) -> dict[str, dict[str, float]]:
    """J&F, J and F by sequence, and under "mean over objects" those of all."""
    found = json.loads(vcorr("evaluate", "davis", "--root", root, "--weights", weights, "--out", out, "--json"))
    named = {s["name"]: s for s in found["sequences"]} | {"mean over objects": found}
    return {
        name: {"J&F": 100 * s["j_and_f"], "J": 100 * s["j"]["mean"], "F": 100 * s["f"]["mean"]}
        for name, s in named.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("footage", type=Path, help="folder of videos")
    parser.add_argument("labelled", type=Path, help="data set in DAVIS's layout")
    parser.add_argument("--out", type=Path, required=True, help="folder for frames, run and masks")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="further values of the recipe")
    options = parser.parse_intermixed_args()

    recipe = load_weights().meta["recipe"]
    run, frames = options.out / "run", options.out / "frames"
    vcorr("prepare", options.footage, frames, "--size", 288)
    before = scores(options.labelled, "default", options.out / "masks_default")
    vcorr(
        "train", recipe, "--init", "default", "--data", frames, "--out", run, f"pairs.steps={options.steps}", *RATE,
        *options.overrides,
    )  # fmt: skip
    after = scores(options.labelled, run / "weights.safetensors", options.out / "masks_own")

    print("| sequence | shipped weights: J&F | J | F | refined on the footage: J&F | J | F |\n|" + "---|" * 7)
    for name in before:
        cells = [f"{s[name][measure]:.1f}" for s in (before, after) for measure in ("J&F", "J", "F")]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
