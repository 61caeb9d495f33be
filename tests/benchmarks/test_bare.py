"""``make gpu`` where only what it says it needs is installed: on a rented machine there is no second try."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import venv
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PERMITTED = ("torch", "triton", "numpy", "pytest", "hypothesis", "einops")  # as the Makefile says
TINY = "negatives:h=6,w=5,c=8,bank=40"


def installed(names: tuple[str, ...]) -> dict[str, importlib.metadata.Distribution]:
    """These distributions and what they require, as far as they are here."""
    found: dict[str, importlib.metadata.Distribution] = {}
    wanted = list(names)
    while wanted:
        name = wanted.pop().lower().replace("_", "-")
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if name not in found:
            found[name] = distribution
            needs = map(Requirement, distribution.requires or ())
            wanted += [need.name for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
    return found


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that finds these packages, by links, and nothing else."""
    folder = tmp_path_factory.mktemp("bare")
    try:
        venv.create(folder, symlinks=True, with_pip=False)
        (site,) = folder.glob("lib/python*/site-packages")
        for distribution in installed(PERMITTED).values():
            tops = {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}
            for top in sorted(tops - {path.name for path in site.iterdir()}):
                if not top.endswith(".pth"):
                    (site / top).symlink_to(Path(str(distribution.locate_file(top))).resolve())
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no environment of links can be made here: {error}")
    made = folder / "bin/python"
    for names, wanted in (("torch, einops, hypothesis, pytest", ""), ("vcorr", "No module named 'vcorr'")):
        command = [made, "-c", f"import {names}"]
        error = subprocess.run(command, cwd=folder, env=surroundings(), capture_output=True, text=True).stderr
        if not wanted and "Error" in error:
            pytest.skip(f"these packages do not work by links: {error.splitlines()[-1]}")
        assert wanted in error
    return made


def surroundings() -> dict[str, str]:
    """The environment, without a GPU and without what points at packages."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST", "MAKE"))}
    return kept | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}


def make_gpu(python: Path, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    command = ["make", "gpu", f"PYTHON={python}", f"OUT={out}", f"GPU_ARGS={' '.join(more)}"]
    return subprocess.run(command, cwd=ROOT, env=surroundings(), capture_output=True, text=True)


@pytest.mark.long
def test_without_a_gpu_nothing_is_begun(python: Path, tmp_path: Path) -> None:
    done = make_gpu(python, tmp_path / "out")
    assert done.returncode == 2
    assert "gpu.py: error: no GPU that torch can use" in done.stderr
    assert "skipped" not in done.stdout + done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_every_part_runs(python: Path, tmp_path: Path) -> None:
    """On a CPU, where the tests are found and skipped, which is no result."""
    parts = ("--only", "tests", "--only", "operators-fp32")
    done = make_gpu(python, tmp_path, "--device", "cpu", "--rounds", "1", *parts, TINY)
    last = (tmp_path / "tests.log").read_text().splitlines()[-1]
    assert " skipped" in last
    assert "error" not in last
    assert done.stderr.splitlines()[-3:-1] == [
        "tests: SOMETHING IS WRONG, see above",
        "operators-fp32: all is well",
    ]
    assert f"| {TINY} | " in (tmp_path / "operators-fp32.md").read_text()


@pytest.mark.long
def test_the_operators_alone(python: Path) -> None:
    command = [python, "-m", "benchmarks.operators", "--device", "cpu", "windows"]
    done = subprocess.run(command, cwd=ROOT, env=surroundings(), capture_output=True, text=True)
    assert (done.returncode, "windows: is no case" in done.stderr) == (2, True), done.stderr
