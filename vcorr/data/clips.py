"""Training samples: short clips cut from a folder of videos, each a function of (seed, epoch, sample) alone.

The folder holds video files and folders of frames at any depth, any mix of sizes, no index. Every frame that starts a
clip is visited once an epoch, in an order drawn for that epoch; gap, direction, crop and flip are drawn for the sample.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from vcorr import color
from vcorr import rng as random
from vcorr.data.folder import natural_key
from vcorr.data.video import open_video
from vcorr.errors import InputError, UsageError
from vcorr.image import FRAME_SUFFIXES, read_rgb, shrink, shrunk_size

Picture = NDArray[np.uint8]

VIDEO_SUFFIXES = frozenset(
    [".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".mxf", ".ogv", ".ogg", ".flv", ".asf", ".gif", ".mts", ".ts", ".3gp"]
)
ATTEMPTS = 10  # other samples that stand in for one whose frames turn out unreadable, before giving up


@dataclass(frozen=True)
class ClipConfig:
    """How clips are cut.

    Attributes:
        size: side of the square that the network sees, pixels.
        frames: frames a clip.
        gaps: frames from one frame of the clip to the next, one value drawn a clip; ``weights``: with these odds
            (equal when empty).
        crop: ``frame`` squeezes the whole frame into the square; ``square`` cuts a random square out of it, the same
            in all frames of the clip, its side drawn between ``smallest`` pixels and the frame's short side.
        flip: mirror left and right half of the time. reverse: play backwards half of the time.
        read: frames are kept at this short side, so that a crop never shrinks a huge frame again and again.
        cache: decoded frames kept in memory, in MiB.
    """

    size: int = 256
    frames: int = 2
    gaps: tuple[int, ...] = (1, 2, 3)
    weights: tuple[float, ...] = ()
    crop: Literal["frame", "square"] = "square"
    smallest: int = 128
    flip: bool = True
    reverse: bool = True
    read: int = 288
    cache: int = 2048


class Clips:
    """The training set under a folder.

    Args:
        root: folder of video files and frame folders.
        cfg: how clips are cut.
        seed: of the run.

    Raises:
        InputError: nothing there that can be read, or every video is too short. ``skipped`` lists what was left out.
    """

    def __init__(self, root: str | Path, cfg: ClipConfig, seed: int) -> None:
        if cfg.weights and len(cfg.weights) != len(cfg.gaps):
            raise UsageError(
                "clips.weights", f"{len(cfg.weights)} weights for {len(cfg.gaps)} gaps", "give one a gap, or none"
            )
        self.cfg, self.seed = cfg, seed
        self.sources: list[tuple[Path, list[Path] | None]] = []
        self.skipped: dict[str, str] = {}
        self._starts: list[tuple[int, int]] = []
        self._order: tuple[int, torch.Tensor] = (-1, torch.empty(0))
        self._frames = _Frames(cfg)
        reach = (cfg.frames - 1) * min(cfg.gaps)
        for path, stills in _scan(Path(root)):
            try:
                count = len(stills) if stills is not None else _count(path)
            except InputError as error:
                self.skipped[str(path)] = error.what
                continue
            if count <= reach:
                self.skipped[str(path)] = f"{count} frames, a clip needs {reach + 1}"
                continue
            self._starts += [(len(self.sources), start) for start in range(count - reach)]
            self.sources.append((path, stills))
            self._frames.counts.append(count)
        if not self.sources:
            found = (
                "; ".join(f"{p}: {why}" for p, why in list(self.skipped.items())[:3]) or "no videos or frame folders"
            )
            raise InputError(root, f"nothing to train on ({found})", "give a folder of videos and/or folders of frames")

    def __len__(self) -> int:
        """Samples an epoch."""
        return len(self._starts)

    def batch(self, step: int, size: int) -> tuple[torch.Tensor, tuple[int, ...]]:
        """The clips of a step: normalised Lab [b t 3 h w], and which samples they are."""
        samples = tuple(range(step * size, (step + 1) * size))
        rgb = np.stack([self._clip(sample) for sample in samples])
        b, t = rgb.shape[:2]
        lab = color.to_lab(color.from_uint8(rgb.reshape(b * t, *rgb.shape[2:])))
        return lab.view(b, t, *lab.shape[1:]), samples

    def _clip(self, sample: int) -> Picture:
        for attempt in range(ATTEMPTS):
            rng = random.generator(self.seed, f"clip.{attempt}" if attempt else "clip", sample)
            source, start = self._starts[self._position(sample, attempt)]
            try:
                return self._cut(source, start, rng)
            except InputError as error:
                self.skipped[error.where] = error.what
        raise InputError(
            self.sources[source][0], f"{ATTEMPTS} samples in a row cannot be read", "check the training videos"
        )

    def _position(self, sample: int, attempt: int) -> int:
        epoch, index = divmod(sample, len(self))
        if self._order[0] != epoch:
            self._order = (epoch, torch.randperm(len(self), generator=random.generator(self.seed, "order", epoch)))
        return int(self._order[1][(index + attempt) % len(self)])

    def _cut(self, source: int, start: int, rng: torch.Generator) -> Picture:
        cfg = self.cfg
        last = self._frames.counts[source] - 1
        odds = cfg.weights or (1.0,) * len(cfg.gaps)
        fits = [w if start + (cfg.frames - 1) * gap <= last else 0.0 for gap, w in zip(cfg.gaps, odds, strict=True)]
        gap = cfg.gaps[int(torch.multinomial(torch.tensor(fits), 1, generator=rng))]
        order = range(start, start + cfg.frames * gap, gap)
        if cfg.reverse and random.integer(0, 2, rng):
            order = order[::-1]
        pictures = [self._frames.get(source, *self.sources[source], index) for index in order]
        height, width = pictures[0].shape[:2]
        box = (
            (0.0, 0.0, float(width), float(height))
            if cfg.crop == "frame"
            else _square(height, width, cfg.smallest, rng)
        )
        resized = [
            np.asarray(Image.fromarray(p).resize((cfg.size, cfg.size), Image.Resampling.BILINEAR, box))
            for p in pictures
        ]
        clip = np.stack(resized)
        return clip[:, :, ::-1] if cfg.flip and random.integer(0, 2, rng) else clip


def _square(height: int, width: int, smallest: int, rng: torch.Generator) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) of a random square."""
    short = min(height, width)
    side = random.uniform(min(smallest, short), short, rng)
    left, top = random.uniform(0, width - side, rng), random.uniform(0, height - side, rng)
    return left, top, left + side, top + side


def _scan(root: Path) -> list[tuple[Path, list[Path] | None]]:
    """Frame folders (with their files) and video files under root, in one order on every machine."""
    if not root.is_dir():
        raise InputError(root, "no such folder", "give a folder of videos and/or folders of frames")
    found: list[tuple[Path, list[Path] | None]] = []
    for folder, subfolders, names in os.walk(root, followlinks=True):
        subfolders.sort()
        files = [Path(folder) / name for name in sorted(names) if not name.startswith(".")]
        stills = [f for f in files if f.suffix.lower() in FRAME_SUFFIXES]
        if stills:
            found.append((Path(folder), sorted(stills, key=natural_key)))
        found += [(f, None) for f in files if f.suffix.lower() in VIDEO_SUFFIXES]
    return found


def _count(path: Path) -> int:
    with open_video(path) as video:
        return len(video)


class _Frames:
    """Decoded frames, the most recently used ones kept up to a number of bytes."""

    def __init__(self, cfg: ClipConfig) -> None:
        self.counts: list[int] = []
        self._cfg = cfg
        self._kept: OrderedDict[tuple[int, int], Picture] = OrderedDict()
        self._bytes = 0

    def get(self, source: int, path: Path, stills: list[Path] | None, index: int) -> Picture:
        key = (source, index)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        picture = self._read(path, stills, index)
        self._kept[key] = picture
        self._bytes += picture.nbytes
        while self._bytes > self._cfg.cache << 20 and len(self._kept) > 1:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return picture

    def _read(self, path: Path, stills: list[Path] | None, index: int) -> Picture:
        if stills is None:
            with open_video(path) as video:
                return video.frame(index, short_side=self._cfg.read)
        rgb = read_rgb(stills[index])
        return shrink(rgb, shrunk_size(rgb.shape[0], rgb.shape[1], self._cfg.read))
