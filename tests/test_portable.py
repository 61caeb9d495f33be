"""Every command runs where fcntl, SIGUSR1, affinities and folders that can be synced are missing, as on Windows."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.toys import save_mask, scene

ELSEWHERE = """
import os, signal, sys
sys.modules["fcntl"] = None
for module, name in ((signal, "SIGUSR1"), (signal, "SIGUSR2"), (os, "sched_getaffinity"), (os, "killpg"), (os, "fork")):
    if hasattr(module, name):
        delattr(module, name)
opened = os.open
def only_files(path, *args, **options):
    if os.path.isdir(path):
        raise PermissionError(13, "Permission denied", path)
    return opened(path, *args, **options)
os.open = only_files
import json
from vcorr.cli import main
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["vcorr", *arguments]
    try:
        main()
    except SystemExit as ended:
        if ended.code:
            sys.exit(f"{arguments} ends with {ended.code}")
"""


@pytest.fixture
def data_set(tmp_path: Path, frames: Path, mask: Path) -> Path:
    root = tmp_path / "davis"
    shutil.copytree(frames, root / "JPEGImages/480p/a")
    (root / "Annotations/480p/a").mkdir(parents=True)
    for step in range(8):
        save_mask(root / f"Annotations/480p/a/{step:05d}.png", scene(step)[1])
    (root / "ImageSets/2017").mkdir(parents=True)
    (root / "ImageSets/2017/val.txt").write_text("a\n")
    return root


@pytest.mark.slow
def test_commands_run_without_posix(tmp_path: Path, frames: Path, mask: Path, weights: Path, data_set: Path) -> None:
    tiny = [
        "net.widths=8,8,8,8",
        "net.features=8",
        "matching.radius=2",
        "pairs.batch=2",
        "pairs.steps=2",
        "clips.size=24",
    ]
    commands = [
        ["propagate", frames, mask, "--weights", weights, "--out", "out/propagate"],
        ["prepare", frames, "out/prepare", "--size", "32"],
        ["evaluate", "davis", "--root", data_set, "--weights", weights, "--out", "out/evaluate", "--workers", "1"],
        ["train", "mast", *tiny, "clips.smallest=20", "--data", frames, "--out", "out/train", "--device", "cpu"],
    ]
    (tmp_path / "out").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, json.dumps([[str(word) for word in words] for words in commands])],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out").iterdir())) == 4 and not list((tmp_path / "out").rglob("*.part*"))
