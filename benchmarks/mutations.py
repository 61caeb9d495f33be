"""Faults put into copies of the package, one at a time: each must turn a test of propagation red.

    python benchmarks/mutations.py [NAME ...]

Prints a line for each: which test caught it, or that none did. Ends with 1 if one survived.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
TESTS = tuple(f"tests/propagation/test_{name}.py" for name in ("oracle", "propagator", "follow", "target", "leaks"))


@dataclass(frozen=True)
class Mutation:
    """A change of one file: ``old``, which stands there once, becomes ``new``; files of tests, and which of them."""

    path: str
    old: str
    new: str
    tests: tuple[str, ...] = TESTS
    chosen: str = ""  # by pytest -k
    also: tuple[str, str] | None = None  # a second change of the file, where either alone does no harm

    def apply(self, root: Path) -> None:
        """Change the file below a folder.

        Raises:
            ValueError: ``old`` does not stand there, or more than once.
        """
        file = root / self.path
        text = file.read_text(encoding="utf-8")
        for old, new in ((self.old, self.new), *([self.also] if self.also else [])):
            if text.count(old) != 1:
                raise ValueError(f"{self.path} must hold {old!r} once, got {text.count(old)}")
            text = text.replace(old, new)
        file.write_text(text, encoding="utf-8")


READING, LABEL = "vcorr/propagation/reading.py", "vcorr/labels/label.py"
SETTINGS, INFERENCE = "vcorr/matching/settings.py", "vcorr/model/inference.py"
MEMORY, PROPAGATOR = "vcorr/propagation/memory.py", "vcorr/propagation/propagator.py"
FOLLOW = "vcorr/propagation/follow.py"

MUTATIONS = {
    "top-k ignored": Mutation(
        READING,
        "found = memory_read(query, keys, values, top_k=top_k",
        "found = memory_read(query, keys, values, top_k=None",
    ),
    "scale replaced": Mutation(SETTINGS, '"scale": self.scale', '"scale": 200.0'),
    "radius replaced": Mutation(SETTINGS, '"radius": self.radius', '"radius": 12'),
    "border replaced": Mutation(SETTINGS, '"border": self.border', '"border": "mask"'),
    "radius of training": Mutation(INFERENCE, '"radius": self.radius', '"radius": "same"'),
    "scale of training": Mutation(INFERENCE, '"scale": self.scale', '"scale": "same"'),
    "compactness ignored": Mutation(READING, "if inference.compactness:", "if False:"),
    "no search": Mutation(READING, "not 0 < inference.roi_search < gap", "True"),
    "values of another reference": Mutation(
        READING, "[frame.values for frame in frames.values()]", "[frame.values for frame in frames.values()][::-1]"
    ),
    "only t-1 read": Mutation(MEMORY, "for p in read_at(t, references)}", "for p in [t - 1]}"),
    "first frame forgotten": Mutation(
        MEMORY, "tuple(sorted(lasting | recent)) or (0,)", "tuple(sorted(recent)) or (0,)"
    ),
    "no appearance": Mutation(PROPAGATOR, "if target is not None and look is not None:", "if False:"),
    "origin ignored": Mutation(
        PROPAGATOR, "return values if not strength or origin is None else", "return values if True else"
    ),
    "pieces kept": Mutation(PROPAGATOR, "if whole is None:", "if True:"),
    "corrected labels fed back": Mutation(
        PROPAGATOR, "self._feedback(label, read, grid)", "self._feedback(label, self.values, grid)"
    ),
    "carried places not proven": Mutation(FOLLOW, "gain >= margin", "gain >= -9"),
    "places not carried": Mutation(FOLLOW, "place - own, weight", "own - own, weight"),
    "nothing followed": Mutation(PROPAGATOR, "self.model.inference.follow is not None", "False"),
    "result rolled by one pixel": Mutation(
        LABEL, "self.classes[choice.cpu().numpy()]", "np.roll(self.classes[choice.cpu().numpy()], 1, axis=1)"
    ),
    "values rolled by one cell": Mutation(
        LABEL, "return torch.cat(cells, -1)", "return torch.cat(cells, -1).roll(1, 2)"
    ),
    "feedback always soft": Mutation(PROPAGATOR, 'self.model.inference.feedback == "hard"', "False"),
    "feedback always hard": Mutation(PROPAGATOR, 'self.model.inference.feedback == "hard"', "True"),
    "alignment replaced": Mutation(PROPAGATOR, "self.model.matching.alignment", '"cell"'),
    "slow encoder ignored": Mutation(
        "vcorr/model/encoder.py", "if self.slow is not None:", "if self.slow is not None and False:"
    ),
}


def caught(mutation: Mutation | None) -> str | None:
    """The first test that fails on a copy with the fault in it; None where none does."""
    with tempfile.TemporaryDirectory(prefix="vcorr-") as folder:
        root = Path(folder)
        for name in ("vcorr", "tests"):
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copyfile(ROOT / "pyproject.toml", root / "pyproject.toml")
        if mutation is not None:
            mutation.apply(root)
        tests, chosen = (TESTS, "") if mutation is None else (mutation.tests, mutation.chosen)
        command = [sys.executable, "-m", "pytest", "-qx", "-p", "no:cacheprovider", *tests, "-k", chosen]
        environment = os.environ | {"PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1"}
        result = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    if result.returncode == 0:
        return None
    failed = [line for line in result.stdout.splitlines() if line.startswith("FAILED ")]
    if result.returncode != 1 or not failed:
        raise RuntimeError(f"the tests did not run:\n{result.stdout[-2000:]}{result.stderr[-2000:]}")
    return failed[0].removeprefix("FAILED ").split(" - ")[0]


def main(mutations: dict[str, Mutation], about: str | None) -> None:
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(mutations)}; default: all")
    names = parser.parse_args().names or list(mutations)
    if mutations is MUTATIONS and (test := caught(None)):
        sys.exit(f"without any fault {test} fails")
    survived = 0
    for name in names:
        test = caught(mutations[name])
        survived += test is None
        print(f"{name}: {test or 'SURVIVED'}", flush=True)
    sys.exit(1 if survived else 0)


if __name__ == "__main__":
    main(MUTATIONS, __doc__)
