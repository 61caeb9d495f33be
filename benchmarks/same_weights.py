"""Do two revisions train the same weights? Every recipe that both have, 40 steps in each, compared bit for bit.

    python -m benchmarks.same_weights BEFORE [AFTER] [--recipes NAME ...] [--steps 40] [--set KEY=VALUE ...]

A revision is anything that git knows, or "." for the files as they lie here (AFTER, unless given). Each is laid out in
a folder of its own and asked by its command line alone, so that names within may differ; it runs with the packages
installed here, on one thread. Sizes are small; a key is set by its whole name or its last part where a revision has it.
The videos are drawn: clouds that slide. Ten of the steps are those before a recipe's last stage. Prints a line a
recipe; the exit code is 1 where a tensor differs, or a recipe of both does not run.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

ROOT = Path(__file__).parents[1]
SMALL = {
    **{"net.widths": "16,16,16,16", "net.features": "8", "radius": "2", "jitter.share": "0.5"},
    **{"batch": "2", "warmup": "0", "size": "24", "smallest": "20", "read": "48"},
}  # not below 16 wide: narrower strided kernels are convolved in a way of their own
FRAMES = 12  # of a drawn video
EARLY = 10  # steps before the last stage


def lay_out(revision: str, folder: Path) -> Path:
    """The files of a revision: a folder of its own, or where they lie."""
    if revision == ".":
        return ROOT
    packed = subprocess.run(["git", "archive", revision], cwd=ROOT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def recipes_of(tree: Path) -> set[str]:
    return {path.stem for path in (tree / "recipes").glob("*.py")} - {"__init__"}


def train_all(tree: Path, data: Path, out: Path, recipes: list[str], steps: int, more: list[str]) -> dict[str, str]:
    """Train recipes by the code of a tree, in a process of its own; what went wrong, by recipe."""
    job = json.dumps([str(tree), str(data), str(out), recipes, steps, more])
    environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, __file__, "--within", job], env=environment, capture_output=True, text=True, check=False
    )
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        raise SystemExit(f"{tree}: {done.stderr.strip()[-2000:]}")
    return dict(json.loads(lines[-1]))


# --- within a tree --------------------------------------------------------------------------------------------------


def within(tree: str, data: str, out: str, recipes: list[str], steps: int, more: list[str]) -> dict[str, str]:
    """Train recipes by the vcorr that imports, which must be the tree's."""
    vcorr = importlib.import_module("vcorr")
    assert Path(str(vcorr.__file__)).parent == Path(tree, "vcorr"), vcorr.__file__
    # Its recipes are shipped as vcorr.recipes; where it is not installed they lie beside it.
    where = Path(tree, "recipes")
    spec = importlib.util.spec_from_file_location(
        "vcorr.recipes", where / "__init__.py", submodule_search_locations=[str(where)]
    )
    assert spec is not None and spec.loader is not None
    sys.modules["vcorr.recipes"] = vcorr.recipes = importlib.util.module_from_spec(spec)  # type: ignore[attr-defined]
    spec.loader.exec_module(sys.modules["vcorr.recipes"])
    torch.set_num_threads(1)
    wrong = {}
    for recipe in recipes:
        try:
            sizes = overrides(command("train", recipe, "--show"), steps, more)
            command("train", recipe, *sizes, "--data", data, "--out", str(Path(out, recipe)), "--device", "cpu")
        except RuntimeError as error:
            wrong[recipe] = str(error)
    return wrong


def command(*words: str) -> str:
    """What ``vcorr WORDS`` prints."""
    printed, said = io.StringIO(), io.StringIO()
    cli, sys.argv = importlib.import_module("vcorr.cli"), ["vcorr", *words]
    code: Any = 0
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(said):
        try:
            cli.main()
        except SystemExit as ended:
            code = ended.code
    if code:
        raise RuntimeError(f"vcorr {' '.join(words)} ends with {code}: {said.getvalue().strip()[-600:]}")
    return printed.getvalue()


def overrides(shown: str, steps: int, more: list[str]) -> list[str]:
    """The small sizes of the keys of a configuration, as ``--show`` prints it."""
    keys = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
    pairs = {key: SMALL.get(key) or SMALL.get(key.rpartition(".")[2]) for key in keys}
    pairs |= {key: "8" for key, value in keys.items() if key.endswith(".frames") and int(value) > 8}
    *early, last = [key for key, value in keys.items() if key.endswith(".steps") and value != "0"]
    each = EARLY // len(early) if early else 0
    pairs |= {key: str(each) for key in early} | {last: str(steps - each * len(early))}
    pairs |= {key: value for key, _, value in (pair.partition("=") for pair in more) if key in keys}
    return [f"{key}={value}" for key, value in pairs.items() if value]


# --- without --------------------------------------------------------------------------------------------------------


def draw_videos(root: Path) -> Path:
    """Two videos of coloured clouds that slide, as folders of frames."""
    for seed, (dy, dx) in enumerate([(2, 4), (-4, 0)]):
        coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3)).astype(np.uint8)
        world = np.asarray(Image.fromarray(coarse).resize((104, 80), Image.Resampling.BICUBIC))
        (root / f"video{seed}").mkdir(parents=True)
        for k in range(FRAMES):
            picture = np.ascontiguousarray(np.roll(world, (dy * k, dx * k), (0, 1))[:48, :64])
            Image.fromarray(picture).save(root / f"video{seed}" / f"{k:03d}.png")
    return root


def compare(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> str:
    """Which tensors differ, or nothing."""
    if before.keys() != after.keys():
        return f"other tensors: {', '.join(sorted(before.keys() ^ after.keys())[:4])}"
    other = [name for name in before if not torch.equal(before[name], after[name])]
    if not other:
        return ""
    most = max(float((before[name].double() - after[name].double()).abs().max()) for name in other)
    return f"{len(other)} of {len(before)} tensors differ, by {most:.1e} at most, {other[0]} first"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", metavar="BEFORE")
    parser.add_argument("after", metavar="AFTER", nargs="?", default=".")
    parser.add_argument("--recipes", nargs="+", metavar="NAME", help="only these; default: all that both have")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="where a recipe has the key")
    given = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory(prefix="vcorr-") as scratch:
        data = draw_videos(Path(scratch, "videos"))
        trees = [lay_out(given.before, Path(scratch, "before")), lay_out(given.after, Path(scratch, "after"))]
        found = [recipes_of(tree) for tree in trees]
        print(f"in one alone: {', '.join(sorted(found[0] ^ found[1])) or 'none'}", flush=True)
        recipes = sorted(given.recipes or found[0] & found[1])
        outs = [Path(scratch, "runs", side) for side in ("before", "after")]
        wrong: dict[str, str] = {}
        for tree, out in zip(trees, outs, strict=True):
            wrong |= train_all(tree, data, out, recipes, given.steps, given.set)
        for recipe in recipes:
            text = wrong.get(recipe)
            if text is None:
                weights = [load_file(out / recipe / "weights.safetensors") for out in outs]
                text = compare(*weights)
            failed += bool(text)
            print(f"{recipe:14} {text or f'{len(weights[0])} tensors, bit for bit the same'}", flush=True)
    sys.exit(failed > 0)


if __name__ == "__main__":
    if sys.argv[1] == "--within":
        print(json.dumps(within(*json.loads(sys.argv[2]))))
    else:
        main()
