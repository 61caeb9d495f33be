"""Cuts training clips from the videos of a folder. A clip depends only on (seed, epoch, sample).

The folder holds video files and folders of frames of any sizes, at any depth. Order, gap, direction, crop and flip are
drawn for the epoch or for the sample, so every process and every resumed run cuts the same clips.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vcorr import rng as random
from vcorr.errors import InputError, UsageError
from vcorr.training.clips.dataset import Dataset, Frames, Picture
from vcorr.training.clips.device import DeviceFrames, resample
from vcorr.training.clips.order import Intervals, Order, Place, Starts
from vcorr.training.clips.stills import LARGEST_MOVE, still_clip

ATTEMPTS = 10  # samples that are tried in place of an unreadable one


@dataclass(frozen=True)
class ClipConfig:
    """How clips are cut.

    A clip has ``frames`` frames, one gap apart. A *memory clip* has a query frame and the references that propagation
    would keep for it (`References`): from a piece of video with the query at position T, it takes the frames ``long``,
    then T - ``short``, then T. ``ClipConfig(frames=25, long=(0, 5), short=(5, 3, 1), gaps=(1,))`` takes six frames at
    the positions 0, 5, T-5, T-3, T-1, T, with T drawn for the sample from 6 to 24, or to the end of the video. In both
    cases, the query is the last frame of the clip.

    Attributes:
        size: side of the network's square input, in pixels.
        frames: frames of a clip; for a memory clip, of the longest piece.
        long, short: the references of a memory clip, counted from the start of the piece and back from the query.
        gaps: frames of the video between two positions; one value is drawn for each clip.
        weights: the odds of the gaps; empty for equal odds.
        sampling: ``starts``: every frame that can start a clip does so once in an epoch. ``intervals``: an epoch draws
            one gap for each video, and cuts frames 0, gap, 2 gap, ... into consecutive clips (CorrFlow, MAST).
        crop: ``frame`` resizes the whole frame to the square. ``square`` cuts out a random square, the same in all
            frames of the clip; its side is between ``smallest`` pixels and the short side of the frame.
        flip: mirror half of the clips. reverse: play half of the clips backwards.
        source: ``video``: the images of a folder are the frames of a video. ``stills``: each is a still image, which a
            homography turns into a clip once in an epoch (see ``stills``); gaps, sampling and crop have no effect.
        stills: names of folders that hold still images, beside the videos of all other folders.
        warp: for stills, how far the corners of the square move, as a share of its side, in [0, 0.25).
        read: short side of the decoded frames in pixels, so that huge frames are shrunk once only.
        keep: where decoded frames stay: in ``memory``, or on the training ``device``, which then cuts the clips.
        cache: MiB for decoded frames. Memory drops the least recently used ones; a device keeps all.
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
    keep: Literal["memory", "device"] = "memory"
    sampling: Literal["starts", "intervals"] = "starts"
    long: tuple[int, ...] = ()
    short: tuple[int, ...] = ()
    source: Literal["video", "stills"] = "video"
    stills: tuple[str, ...] = ()
    warp: float = 0.12

    def __post_init__(self) -> None:
        if min(self.size, self.frames, self.smallest, self.read, *self.gaps, *(() if self.gaps else (0,))) < 1:
            raise ValueError("size, frames, smallest, read and every gap must be at least 1")
        if self.cache < 0:
            raise ValueError(f"cache must not be negative, got {self.cache}")
        if not all(0 <= w < float("inf") for w in self.weights) or (self.weights and sum(self.weights) == 0):
            raise ValueError(f"weights must not be negative, nor all 0, got {self.weights}")
        if not 0 <= self.warp < LARGEST_MOVE:
            raise ValueError(f"warp must be in [0, {LARGEST_MOVE}), got {self.warp}")
        if min(self.long, default=0) < 0 or min(self.short, default=1) < 1:
            raise ValueError(f"long must be >= 0 and short >= 1, got {self.long} and {self.short}")
        if self.frames <= self.least:
            raise ValueError(f"frames must be above {self.least} for these references, got {self.frames}")
        if self.sampling == "intervals" and (self.memory or self.stills):
            raise ValueError("memory clips (long, short) and stills need every start: sampling must be starts")

    @property
    def memory(self) -> bool:
        """Whether clips are memory clips."""
        return bool(self.long or self.short)

    @property
    def least(self) -> int:
        """The smallest position of the query."""
        return max(*(k + 1 for k in self.long), *self.short, 0) if self.memory else self.frames - 1

    @property
    def length(self) -> int:
        """Frames of a clip, t in [b t 3 h w]."""
        return len(self.long) + len(self.short) + 1 if self.memory else self.frames

    def positions(self, last: int) -> list[int]:
        """The positions of the clip's frames for a query at ``last``."""
        if not self.memory:
            return list(range(last + 1))
        return [*self.long, *(last - back for back in self.short), last]


class Clips:
    """The training set: all clips of the videos.

    Args:
        dataset: the videos.
        cfg: how clips are cut.
        seed: of the run.
        device: trains.

    Attributes:
        sources: the videos that are long enough.
        skipped: path -> reason of the others.
        device: holds the clips: the CPU, unless ``cfg.keep`` is ``device``.
        unreadable: path -> reason of damaged frames found so far; other samples replaced them.
        notes: what the user should know, one line each.

    Raises:
        UsageError: the number of weights differs from that of gaps, or the frames on the device exceed ``cache``.
        InputError: all videos are too short.
    """

    def __init__(self, dataset: Dataset, cfg: ClipConfig, seed: int, device: torch.device | str = "cpu") -> None:
        if cfg.weights and len(cfg.weights) != len(cfg.gaps):
            raise UsageError(
                "clips.weights", f"{len(cfg.weights)} weights for {len(cfg.gaps)} gaps", "give one a gap, or none"
            )
        dataset = dataset.as_stills() if cfg.source == "stills" else dataset.with_stills(cfg.stills)
        self.cfg, self.seed = cfg, seed
        self.skipped = dict(dataset.skipped)
        self.unreadable: dict[str, str] = {}
        self._odds = cfg.weights or (1.0,) * len(cfg.gaps)
        smallest = min(gap for gap, odds in zip(cfg.gaps, self._odds, strict=True) if odds)
        reach = cfg.least * smallest
        starts = [1 if s.image else s.frames - reach for s in dataset.sources]
        self._videos = [k for k, n in enumerate(starts) if n > 0]  # stages may differ in reach
        self.sources = [dataset.sources[k] for k in self._videos]
        for source, n in zip(dataset.sources, starts, strict=True):
            if n <= 0:
                self.skipped[str(source.path)] = f"{source.frames} frames, a clip needs {reach + 1}"
        if not self.sources:
            longest = max(s.frames for s in dataset.sources)
            raise InputError(
                dataset.root,
                f"no video is long enough: a clip needs {reach + 1} frames, the longest has {longest}",
                "give longer videos, or lower clips.gaps",
            )
        self._order: Order = (
            Intervals([s.frames for s in self.sources], cfg.frames, cfg.gaps, self._odds, seed)
            if cfg.sampling == "intervals" and cfg.source == "video"
            else Starts([starts[k] for k in self._videos], seed)
        )
        self.device = torch.device(device if cfg.keep == "device" else "cpu")
        self._frames: Frames | DeviceFrames = (
            DeviceFrames(self.sources, cfg.read, cfg.cache << 20, self.device)
            if cfg.keep == "device"
            else Frames(self.sources, cfg.read, cfg.cache << 20)
        )
        films = sum(s.stills is None for s in self.sources)
        self.notes = () if self._frames.fits or not films else (_slow(films, self._frames.needed, cfg.cache),)

    def __len__(self) -> int:
        """Samples of an epoch; with ``sampling="intervals"``, of the first one."""
        return len(self._order)

    def batch(self, samples: Iterable[int]) -> tuple[Tensor, tuple[int, ...]]:
        """Returns the clips of samples, uint8 [b t h w 3], and the index in the dataset of each clip's video.

        Raises:
            InputError: ``ATTEMPTS`` samples in a row cannot be read.
        """
        clips, videos = zip(*map(self.clip, samples), strict=True)
        return torch.stack(clips), videos

    def clip(self, sample: int) -> tuple[Tensor, int]:
        """Returns the clip of a sample, uint8 [t h w 3], and the index of its video in the dataset."""
        for attempt in range(ATTEMPTS):
            rng = random.generator(self.seed, f"clip.{attempt}" if attempt else "clip", sample)
            place = self._order.place(sample, attempt)
            try:
                return self._cut(place, rng), self._videos[place.source]
            except InputError as error:
                self.unreadable[error.where] = error.what
        raise InputError(
            self.sources[place.source].path, f"{ATTEMPTS} samples in a row cannot be read", "check the training videos"
        )

    def _cut(self, place: Place, rng: torch.Generator) -> Tensor:
        clip = (self._from_still if self.sources[place.source].image else self._from_video)(place, rng)
        return clip.flip(2) if self.cfg.flip and random.integer(0, 2, rng) else clip

    def _from_still(self, place: Place, rng: torch.Generator) -> Tensor:
        cfg = self.cfg
        (picture,) = self._frames.get(place.source, [0])
        positions, last = self._positions(cfg.frames - 1, rng)
        shares = [p / max(1, last) for p in positions]
        return still_clip(torch.as_tensor(picture), shares, cfg.size, cfg.smallest, cfg.warp, rng)

    def _from_video(self, place: Place, rng: torch.Generator) -> Tensor:
        cfg = self.cfg
        indices = self._indices(place, rng)
        pictures = self._frames.get(place.source, indices)
        height, width = pictures[0].shape[:2]
        if any(p.shape != pictures[0].shape for p in pictures):
            raise InputError(self.sources[place.source].path, "its frames differ in size", "give frames of one size")
        box = (
            (0.0, 0.0, float(width), float(height))
            if cfg.crop == "frame"
            else _square(height, width, cfg.smallest, rng)
        )
        return torch.stack([_resized(p, cfg.size, box) for p in pictures])

    def _indices(self, place: Place, rng: torch.Generator) -> list[int]:
        """The frames of the video for the clip at a place."""
        cfg = self.cfg
        left = self.sources[place.source].frames - 1 - place.start
        gap = place.gap
        if gap is None:
            fits = [w if cfg.least * gap <= left else 0.0 for gap, w in zip(cfg.gaps, self._odds, strict=True)]
            gap = cfg.gaps[int(torch.multinomial(torch.tensor(fits, dtype=torch.float32), 1, generator=rng))]
        positions, _ = self._positions(left // gap, rng)
        return [place.start + p * gap for p in positions]

    def _positions(self, most: int, rng: torch.Generator) -> tuple[list[int], int]:
        """Draws the positions of a clip's frames in a piece, and the last one of the piece, at most ``most``."""
        cfg = self.cfg
        last = random.integer(cfg.least, min(cfg.frames - 1, most) + 1, rng) if cfg.memory else cfg.least
        positions = cfg.positions(last)
        if cfg.reverse and random.integer(0, 2, rng):
            positions = [last - p for p in positions]
        return positions, last


def _resized(picture: Picture | Tensor, size: int, box: tuple[float, float, float, float]) -> Tensor:
    """Resizes a box of a picture to a square: with torch on a device, with Pillow in memory."""
    if isinstance(picture, Tensor):
        return resample(picture, size, box)
    return torch.from_numpy(np.array(Image.fromarray(picture).resize((size, size), Image.Resampling.BILINEAR, box)))


def _slow(films: int, needed: int, cache: int) -> str:
    return (
        f"{films} video files are decoded again for every clip: all frames take {-(-needed >> 20)} MiB, clips.cache is "
        f"{cache}; with a larger one, or with the frames as image files, training may be faster"
    )


def _square(height: int, width: int, smallest: int, rng: torch.Generator) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) of a random square."""
    short = min(height, width)
    side = random.uniform(min(smallest, short), short, rng)
    left, top = random.uniform(0, width - side, rng), random.uniform(0, height - side, rng)
    return left, top, left + side, top + side
