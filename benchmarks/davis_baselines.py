"""J&F on a data set in DAVIS's layout of the trained weights, and of three things they must lead: the first mask
copied, raw colours as features, and the same encoder untrained.

    python benchmarks/davis_baselines.py DAVIS [--weights FILE] [--only shipped] [--json]

All but the copy read labels through the same windows and references; colours and the untrained
encoder at a fixed scale, labels soft.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import torch

from vcorr import rng
from vcorr.evaluation import davis_layout
from vcorr.evaluation.davis import DavisScores, evaluate_davis
from vcorr.evaluation.sequences import label_sequences, trained
from vcorr.matching.cells import downsample
from vcorr.matching.settings import Matching
from vcorr.model import color
from vcorr.model.encoder import Encoder, Model
from vcorr.model.inference import Inference
from vcorr.model.weights import Weights
from vcorr.training import recipe

COLOR_SCALE = 60.0  # set by hand, not tuned: colours 0.18 apart (L'a'b') get 1/e of the weight
UNTRAINED_SCALE = 28.0  # that of the shipped weights
STRIDE = 4  # pixels a cell of colours
LIFT = 4.0  # above the largest squared length of a normalised Lab colour


def colors() -> Model:
    """Lab values as features, lifted to one length, so that <q, k> falls with the distance of the colours."""

    def encode(rgb):
        cells = downsample(color.to_lab(color.from_uint8(rgb[None])), STRIDE, alignment="cell")
        rest = (LIFT - cells.square().sum(-1, keepdim=True)).sqrt()
        return torch.cat([cells, rest], -1).contiguous()

    return Model(Encoder(encode, STRIDE), inference=Inference(scale=COLOR_SCALE))


def untrained() -> Model:
    """The encoder as it is before the first step of training."""
    experiment = recipe.load("default")
    state = experiment.recipe.init(rng.generator(experiment.config.seed, "init"))
    how = Matching(), Inference(scale=UNTRAINED_SCALE)
    return Model.of(Weights(state.params, state.stats, experiment.recipe.net, *how, {}), "cpu")


def copy_first(root: Path, out: Path) -> None:
    """The first mask for every frame."""
    for sequence in davis_layout.sequences(root):
        (out / sequence.name).mkdir(parents=True)
        for frame in sequence.frames:
            shutil.copyfile(sequence.annotations[0], out / sequence.name / f"{frame.stem}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="data set in DAVIS's layout")
    parser.add_argument("--weights", type=Path, help="weights file; default: the shipped ones")
    parser.add_argument("--only", choices=("identity", "colours", "untrained", "shipped"), help="this one alone")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    models = {"identity": None, "colours": colors, "untrained": untrained, "shipped": trained(args.weights)[0]}
    scores: dict[str, DavisScores] = {}
    with tempfile.TemporaryDirectory(prefix="vcorr-") as scratch:
        for name, model in models.items():
            if args.only not in (None, name):
                continue
            out = Path(scratch) / name
            if model is None:
                copy_first(args.root, out)
            else:
                for _ in label_sequences(args.root, out, model, name):
                    pass
            scores[name] = evaluate_davis(args.root, out)
    if args.json:
        print(json.dumps({name: s.to_json() for name, s in scores.items()}, indent=2))
        return
    print("| sequence | " + " | ".join(scores) + " |\n|---|" + "---|" * len(scores))
    for row in zip(*(s.sequences for s in scores.values()), strict=True):
        print(f"| {row[0].name} | " + " | ".join(f"{100 * s.overall.j_and_f:.1f}" for s in row) + " |")
    print(
        "| **mean over objects** | " + " | ".join(f"**{100 * s.overall.j_and_f:.1f}**" for s in scores.values()) + " |"
    )


if __name__ == "__main__":
    main()
