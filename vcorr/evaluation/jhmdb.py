"""JHMDB (Jhuang et al. 2013): its layout, its protocol for label propagation, its table.

    ROOT/splits/<class>_test_split1.txt                        "CLIP.avi 2", 2 for the clips of the test
    ROOT/joint_positions/<class>/CLIP/joint_positions.mat      pos_img [2 15 t]: x and y, the first pixel is 1
    ROOT/Rename_Images/<class>/CLIP/00001.png                  every frame

The joints of frame 0 are given and do not count. If a result lacks a joint in a frame, the joint does not count there,
and the box of the frame leaves it out, as in the scripts that papers use (Li et al. 2019; Jabri et al. 2020). Hence
`counted` in the table: a method that finds fewer joints is scored on fewer.

Reading .mat needs scipy: install vcorr[mat].
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vcorr.errors import InputError, UsageError
from vcorr.evaluation.metrics.points import Errors, Numbers, errors, pck
from vcorr.evaluation.points import ALPHAS, PointScores, VideoScores, places
from vcorr.evaluation.task import PointTask
from vcorr.media.video import open_video

if TYPE_CHECKING:
    from vcorr.evaluation.page import Shot

# fmt: off
JOINTS = (
    "neck", "belly", "face", "right_shoulder", "left_shoulder", "right_hip", "left_hip", "right_elbow", "left_elbow",
    "right_knee", "left_knee", "right_wrist", "left_wrist", "right_ankle", "left_ankle",
)
# fmt: on
READ = (320, 320)  # (height, width) in pixels at which frames are read; ignores proportions
_LAYOUT = "give a folder in the layout of JHMDB: ROOT/joint_positions/CLASS/CLIP/joint_positions.mat"


@dataclass(frozen=True)
class Clip:
    """One clip: its name, its class of action, and its files, which may be missing."""

    name: str
    action: str
    joints: Path
    images: Path


def clips(root: str | PathLike[str], *, listed: str | PathLike[str] | None = None, split: int = 1) -> list[Clip]:
    """Lists the clips of a dataset in the layout of JHMDB.

    Args:
        root: folder that holds joint_positions, and possibly splits; without splits, all clips count.
        listed: a list instead, with the folder of images and the .mat of a clip in each line, as in TimeCycle, UVC and
            CRW.
        split: number of the split.

    Raises:
        InputError: a folder or a list is missing or unreadable, or there is no clip.
    """
    root = Path(root)
    if listed is not None:
        return _listed(Path(listed), root)
    folder = root / "joint_positions"
    if not folder.is_dir():
        raise InputError(folder, "no such folder", _LAYOUT)
    found = []
    for file in sorted(folder.glob("*/*/joint_positions.mat")):
        name, action = file.parent.name, file.parent.parent.name
        if not name.startswith("."):
            found.append(Clip(name, action, file, root / "Rename_Images" / action / name))
    if (root / "splits").is_dir():
        ending = f"_test_split{split}.txt"
        listing = {file.name.removesuffix(ending) for file in (root / "splits").glob(f"[!.]*{ending}")}
        tested = _tested(root / "splits", sorted(listing | {clip.action for clip in found}), split)
        lost = tested - {clip.name for clip in found}
        if lost:
            raise InputError(
                folder, f"no joints of {min(lost)}, which split {split} tests", "add its joint_positions.mat"
            )
        found = [clip for clip in found if clip.name in tested]
    if not found:
        raise InputError(folder, "no clip to take", _LAYOUT)
    return found


def read_joints(path: Path) -> Numbers:
    """Reads the joints of a clip, float64 [t 15 2], x and y in pixels from 0.

    Raises:
        InputError: the file is missing or unreadable, or holds no such joints.
        UsageError: scipy is not installed.
    """
    try:
        import scipy.io
    except ImportError:
        raise UsageError(
            "scipy", "is not installed, and .mat files cannot be read", "pip install 'vcorr[mat]'"
        ) from None
    if not path.is_file():
        raise InputError(path, "no such file", _LAYOUT)
    try:
        joints = np.asarray(scipy.io.loadmat(path, variable_names=["pos_img"])["pos_img"], dtype=np.float64)
    except KeyError:
        raise InputError(path, "holds no pos_img", "give joint_positions.mat as it was released") from None
    except Exception as error:  # the reader raises many kinds of errors on damaged bytes
        raise InputError(path, f"not a readable .mat file ({error})", "give it as it was released") from None
    if joints.ndim != 3 or joints.shape[:2] != (2, len(JOINTS)) or joints.shape[2] < 1:
        shape = "x".join(map(str, joints.shape))
        raise InputError(path, f"pos_img is {shape}, not 2x{len(JOINTS)}xframes", "give it as it was released")
    return joints.transpose(2, 1, 0) - 1


def evaluate_jhmdb(
    root: str | PathLike[str],
    pred: str | PathLike[str],
    *,
    listed: str | PathLike[str] | None = None,
    split: int = 1,
) -> PointScores:
    """Scores results on a dataset in the layout of JHMDB (see the module).

    Args:
        root, listed, split: see `clips`.
        pred: folder of the results, PRED/CLIP.csv or PRED/CLIP/keypoints.csv, possibly below a folder of the class.
            Rows are frame,point,x,y with frames and pixels from 0 and the names of `JOINTS`; x and y of a lost joint
            are empty.

    Raises:
        InputError: the dataset or a result is missing or unreadable, or a result lacks a frame.
    """
    return PointScores(JOINTS, tuple(_score(clip, Path(pred)) for clip in clips(root, listed=listed, split=split)))


def tasks(
    root: str | PathLike[str], out: Path, *, listed: str | PathLike[str] | None = None, split: int = 1
) -> list[PointTask]:
    """The clips as tasks for `label_videos`, which writes OUT/CLIP/keypoints.csv. Frames are read at 320 x 320 pixels.

    Joints outside the frame are not given.

    Raises:
        InputError: frames or joints are missing, or their number differs.
    """
    return [_task(clip, out / clip.name) for clip in clips(root, listed=listed, split=split)]


def shots(
    scores: PointScores,
    root: str | PathLike[str],
    pred: str | PathLike[str],
    *,
    listed: str | PathLike[str] | None = None,
    split: int = 1,
) -> Iterator[Shot]:
    """The clips, scored by PCK_instance at the lower threshold, with their joints over the images, if there are any.

    For `vcorr.evaluation.page`.
    """
    from vcorr.evaluation.page import Shot

    known = {clip.name: clip for clip in clips(root, listed=listed, split=split)}
    for scored in scores.videos:
        clip = known[scored.name]
        each = pck([scored.errors], ALPHAS[0], "instance")
        counted = each[~np.isnan(each)]
        score = float(counted.mean()) if counted.size else float("nan")
        picture = partial(_drawn, clip, _result(Path(pred), clip))
        yield Shot(scored.name, (score,), (_shares(scored.errors),), scored.frames, picture)


def _shares(found: Errors) -> tuple[float, ...]:
    """The share of the counted joints of each frame that are right."""
    right, counted = found.right(ALPHAS[0], "instance") & found.counted, found.counted.sum(1)
    return tuple(float(r / n) if n else float("nan") for r, n in zip(right.sum(1), counted, strict=True))


def _drawn(clip: Clip, result: Path, name: str) -> np.ndarray:
    from vcorr.labels.draw import draw_points

    (found,) = places(result, JOINTS, [int(name)])
    if not clip.images.is_dir():
        picture = np.full((240, 320, 3), 40, np.uint8)  # the size of all clips
    else:
        with open_video(clip.images) as video:
            picture = video.frame(int(name))
    return draw_points(picture, found, np.ones(len(JOINTS)))


def _task(clip: Clip, out: Path) -> PointTask:
    if not clip.images.is_dir():
        raise InputError(clip.images, "no images of this clip", "add its frames, 00001.png ...")
    joints = read_joints(clip.joints)
    with open_video(clip.images) as video:
        if len(video) < len(joints):
            what = f"holds {len(video)} frames, and {clip.joints} has the joints of {len(joints)}"
            raise InputError(clip.images, what, "give every frame")
        size = video.height, video.width
    return PointTask(clip.name, clip.images, out, size, len(joints), JOINTS, partial(_given, clip, size), READ)


def _given(clip: Clip, size: tuple[int, int]) -> Numbers:
    first = read_joints(clip.joints)[0]
    inside = ((first >= -0.5) & (first < np.array([size[1], size[0]]) - 0.5)).all(1)
    return np.where(inside[:, None], first, np.nan)


def _score(clip: Clip, pred: Path) -> VideoScores:
    truth = read_joints(clip.joints)
    if len(truth) < 2:
        raise InputError(clip.joints, "has one frame, which is given", "leave this clip out")
    frames = range(1, len(truth))
    found = places(_result(pred, clip), JOINTS, frames)
    return VideoScores(clip.name, tuple(map(str, frames)), errors(truth[1:], found, lost="skipped"))


def _result(pred: Path, clip: Clip) -> Path:
    """The result file of a clip; if there is none, the first expected path."""
    wanted = [
        folder / name
        for folder in (pred, pred / clip.action)
        for name in (f"{clip.name}/keypoints.csv", f"{clip.name}.csv", f"{clip.name}.json")
    ]
    there = [file for file in wanted if file.is_file()]
    if len(there) > 1:
        raise InputError(there[1], f"a second file of results of {clip.name}, beside {there[0]}", "keep one of them")
    return there[0] if there else wanted[0]


def _tested(folder: Path, actions: Iterable[str], split: int) -> set[str]:
    tested = set()
    for action in actions:
        path = folder / f"{action}_test_split{split}.txt"
        for number, words in _lines(path):
            if len(words) != 2 or words[1] not in ("0", "1", "2"):
                raise InputError(path, f"line {number} is not a clip and 0, 1 or 2", "give it as it was released")
            if words[1] == "2":
                tested.add(words[0].removesuffix(".avi"))
    return tested


def _listed(path: Path, root: Path) -> list[Clip]:
    found = []
    for number, words in _lines(path):
        mats = [word for word in words if word.endswith(".mat")]
        if len(words) != 2 or len(mats) != 1:
            raise InputError(path, f"line {number} is not a folder of images and a .mat file", _LAYOUT)
        joints = root / mats[0]
        images = root / next(word for word in words if word not in mats)
        found.append(Clip(images.name, images.parent.name, joints, images))
    if not found:
        raise InputError(path, "lists no clip", _LAYOUT)
    return found


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(path, f"not a readable list ({error})", _LAYOUT) from None
    return [(number, words) for number, line in enumerate(text.splitlines(), start=1) if (words := line.split())]
