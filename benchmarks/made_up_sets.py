"""Small sets in the official layouts of the four benchmarks, with results to score, drawn from a seed.

    python -m benchmarks.made_up_sets OUT [--seed 0]

Each of OUT/davis, youtube-vos, vip and jhmdb is a set as it is released: images, annotations, lists. Boxes slide over
noise. OUT/results/NAME holds results for each: the annotations, moved by a pixel every other frame. Prints the commands
that score them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (48, 64)  # height, width
COUNT = 8  # frames
PALETTE = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]


def draw_ids(k: int, *, late: bool = False) -> np.ndarray:
    """Two boxes in frame k, one to the right and one down; with ``late`` the second begins in frame 3."""
    ids = np.zeros(SIZE, np.uint8)
    ids[8:20, 5 + 2 * k : 20 + 2 * k] = 1
    if not late or k >= 3:
        ids[22 + k : 32 + k, 40:55] = 2
    return ids


def moved(ids: np.ndarray, k: int) -> np.ndarray:
    return np.roll(ids, k % 2, 1)


def save(path: Path, array: np.ndarray, *, indexed: bool = True) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    if indexed and array.ndim == 2:
        image = image.convert("P")
        image.putpalette(PALETTE)
    image.save(path)


def picture(rng: np.random.Generator, ids: np.ndarray) -> np.ndarray:
    colours = np.array([[90, 90, 90], [200, 60, 40], [40, 90, 200]], np.uint8)
    return (colours[ids] + rng.integers(0, 40, (*ids.shape, 3))).clip(0, 255).astype(np.uint8)


def davis(out: Path, results: Path, rng: np.random.Generator) -> None:
    """JPEGImages/480p, Annotations/480p and ImageSets/2017/val.txt, numbers of five digits from 0 on."""
    for name in ("slide", "fall"):
        for k in range(COUNT):
            ids = draw_ids(k if name == "slide" else COUNT - k)
            save(out / f"JPEGImages/480p/{name}/{k:05d}.jpg", picture(rng, ids))
            save(out / f"Annotations/480p/{name}/{k:05d}.png", ids)
            save(results / name / f"{k:05d}.png", moved(ids, k))
    listed = out / "ImageSets/2017/val.txt"
    listed.parent.mkdir(parents=True)
    listed.write_text("slide\nfall\n")


def youtube_vos(out: Path, results: Path, rng: np.random.Generator) -> None:
    """meta.json, JPEGImages and Annotations of every fifth frame; object 2, of an unseen category, begins late."""
    frames = [f"{5 * k:05d}" for k in range(COUNT)]
    for k, frame in enumerate(frames):
        ids = draw_ids(k, late=True)
        save(out / f"JPEGImages/park/{frame}.jpg", picture(rng, ids))
        save(out / f"Annotations/park/{frame}.png", ids)
        save(results / f"Annotations/park/{frame}.png", moved(ids, k))
    objects = {"1": {"category": "dog", "frames": frames}, "2": {"category": "spider", "frames": frames[3:]}}
    (out / "meta.json").write_text(json.dumps({"videos": {"park": {"objects": objects}}}))


def vip(out: Path, results: Path, rng: np.random.Generator) -> None:
    """Images, Category_ids and Instance_ids of every 25th frame, with a list of classes beside each instance file."""
    classes = {1: 13, 2: 5}  # face, upper clothes
    kinds = np.array([0, 13, 5], np.uint8)
    for k in range(4):
        frame, ids = f"{1 + 25 * k:012d}", draw_ids(k)
        save(out / f"Images/videos1/{frame}.jpg", picture(rng, ids))
        save(out / f"Annotations/Category_ids/videos1/{frame}.png", kinds[ids], indexed=False)
        save(out / f"Annotations/Instance_ids/videos1/{frame}.png", ids, indexed=False)
        lines = "".join(f"{instance} {kind} 1\n" for instance, kind in classes.items())
        (out / f"Annotations/Instance_ids/videos1/{frame}.txt").write_text(lines)
        save(results / f"videos1/{frame}.png", moved(kinds[ids], k), indexed=False)
        save(results / f"videos1/instance_part/{frame}.png", moved(ids, k), indexed=False)
        (results / f"videos1/instance_part/{frame}.txt").write_text("13 0.9\n5 0.8\n")
    (out / "lists").mkdir()
    (out / "lists/val_id.txt").write_text("videos1\n")


def jhmdb(out: Path, results: Path, rng: np.random.Generator) -> None:
    """Rename_Images, joint_positions of fifteen joints counted from 1, and splits; needs scipy."""
    import scipy.io

    from vcorr.evaluation.jhmdb import JOINTS

    around = np.stack([np.linspace(10, 40, 15), np.linspace(8, 36, 15)])
    joints = np.stack([around + k for k in range(COUNT)], 2)
    for k in range(COUNT):
        save(out / f"Rename_Images/golf/tee/{k + 1:05d}.png", picture(rng, draw_ids(k)))
    mat = out / "joint_positions/golf/tee/joint_positions.mat"
    mat.parent.mkdir(parents=True)
    scipy.io.savemat(mat, {"pos_img": joints + 1})
    (out / "splits").mkdir()
    (out / "splits/golf_test_split1.txt").write_text("tee.avi 2\n")
    rows = ["frame,point,x,y"]
    for k in range(COUNT):
        places = zip(JOINTS, joints[..., k].T, strict=True)
        rows += [f"{k},{name},{x + 3 * (k % 2)},{y}" for name, (x, y) in places]
    results.mkdir(parents=True, exist_ok=True)
    (results / "tee.csv").write_text("\n".join(rows))


SETS: dict[str, Callable[[Path, Path, np.random.Generator], None]] = {
    "davis": davis, "youtube-vos": youtube_vos, "vip": vip, "jhmdb": jhmdb,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="a folder that is not there yet")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    given.out.mkdir(parents=True)
    for name, make in SETS.items():
        make(given.out / name, given.out / "results" / name, np.random.default_rng(given.seed))
        print(f"vcorr evaluate {name} --root {given.out / name} --pred {given.out / 'results' / name}")


if __name__ == "__main__":
    main()
