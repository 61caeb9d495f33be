"""Labels of some frames -> labels of all: each frame reads its label from frames already labelled.

Every frame is encoded once. In memory at any time: one decoded frame, and features and labels of the reference frames
(``memory``). The label of frame t at cell x is sum_r sum_y A(x, y) label_r(y), A one softmax over the windows of all
references jointly (``kernels.memory_read``); the class with the largest score, enlarged to the frame, is the result.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from vcorr.errors import InputError, UsageError
from vcorr.kernels import memory_read
from vcorr.labels.masks import Mask, label_files, read_masks
from vcorr.machine import native_bf16
from vcorr.matching import compactness, region
from vcorr.matching.cells import downsample, upsample
from vcorr.media.video import Video, open_video
from vcorr.model import color, network
from vcorr.model import weights as checkpoint
from vcorr.model.inference import Reader
from vcorr.model.nn import Tensors
from vcorr.propagation import memory

Ids = NDArray[np.uint8] | NDArray[np.uint16]
Encode = Callable[[NDArray[np.uint8]], Tensor]
"""A picture [h w 3] -> features [1 h' w' c]."""

CHUNK = 16  # frames decoded at a time when a walk goes backwards
SCORES = 8  # classes enlarged to full size at a time


@dataclass(frozen=True)
class Frame:
    """A labelled frame.

    Attributes:
        index: of the frame in the video, from 0.
        mask: object ids at the video's full size [H W], 0 is background.
    """

    index: int
    mask: Ids


@dataclass(frozen=True)
class Reference:
    """A frame that is read from: features [1 h w c] and label scores [1 h w v]."""

    feature: Tensor
    label: Tensor


@dataclass
class Seconds:
    """Where the time went."""

    encoder: float = 0.0
    read: float = 0.0
    io: float = 0.0
    other: float = 0.0

    @contextmanager
    def add(self, part: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        setattr(self, part, getattr(self, part) + time.perf_counter() - began)


@dataclass(frozen=True)
class Walk:
    """Frames labelled one after the other, starting at a labelled one.

    Attributes:
        frames: their indices, ascending or descending; the first is labelled.
        until: the labelled frame at the far end, if any: it is read from as well.
    """

    frames: range
    until: int | None = None

    def __len__(self) -> int:
        """Frames that the walk gives out: a backward one leaves its labelled frame to the forward one."""
        return len(self.frames) - (self.frames.step < 0)


def walks(labelled: Sequence[int], start: int, end: int) -> list[Walk]:
    """How the frames start .. end-1 are reached from the labelled ones.

    Between two labelled frames a < b the walk goes from a towards b and reads both; before the first it goes backwards.

    >>> walks([3, 6], 1, 9)
    [Walk(frames=range(3, 0, -1), until=None), Walk(frames=range(3, 6), until=6), Walk(frames=range(6, 9), until=None)]
    """
    inside = [k for k in sorted(labelled) if start <= k < end]
    if not inside:
        raise UsageError(
            "labels", f"no labelled frame within frames {start} to {end - 1}", "label one of them, or widen the range"
        )
    result = [Walk(range(inside[0], start - 1, -1))] if inside[0] > start else []
    for a, b in zip(inside, [*inside[1:], None], strict=True):
        result.append(Walk(range(a, end if b is None else b), b))
    return result


def propagate(
    video: str | Path,
    labels: str | Path,
    *,
    at: Mapping[int, str | Path] | None = None,
    weights: str | Path | None = None,
    short_side: int = 480,
    start: int = 0,
    end: int | None = None,
    device: str | torch.device = "cpu",
) -> Iterator[Frame]:
    """Label every frame of a video from masks of some frames.

    Args:
        video: a video file, a folder of frames, or a glob.
        labels: a mask image of frame ``start``, or a folder of masks named by frame index.
        at: masks of more frames, by index: corrections.
        weights: a weights file of ``vcorr train``; None takes the ones that come with vcorr.
        short_side: a video whose short side is above this is read at this size; masks come back at full size.
        start, end: the frames to label, start .. end-1; None is to the end.
        device: of the computation.

    Yields:
        Frames, one at a time, in bounded memory: ascending, but frames before the first labelled one come first and
        descend towards ``start``.

    Raises:
        InputError: video, labels or weights cannot be read, or do not fit together.
        UsageError: no labelled frame within the range.
    """
    model = checkpoint.load_weights(None if weights is None else Path(weights))
    with open_video(video) as source:
        stop = frame_range(source, start, end)[1]
        masks = given_labels(source, Path(labels), start, {k: Path(p) for k, p in (at or {}).items()})
        job = Job(source, masks, encoder(model, device), model.reader, short_side, torch.device(device))
        for walk in walks(list(masks), start, stop):
            yield from job.walk(walk)


def given_labels(video: Video, labels: Path, start: int, at: Mapping[int, Path] | None = None) -> dict[int, Mask]:
    """Masks by frame index: a file labels frame ``start``, a folder names the frames; ``at`` labels more of them.

    Raises:
        InputError: a mask cannot be read or does not fit the video.
        UsageError: a frame that is labelled twice or does not exist.
    """
    size = (video.height, video.width)
    files = label_files(labels, frames=len(video), names=video.names) if labels.is_dir() else {start: labels}
    for k, path in (at or {}).items():
        if k in files:
            raise UsageError(f"--at {k}={path}", f"frame {k} is labelled by {files[k]} already", "give one of the two")
        if not 0 <= k < len(video):
            raise UsageError(f"--at {k}={path}", f"the video has {len(video)} frames", f"give 0 to {len(video) - 1}")
    return read_masks(dict(sorted({**files, **(at or {})}.items())), size=size)


def frame_range(video: Video, start: int, end: int | None) -> tuple[int, int]:
    """(start, end) checked against the video."""
    stop = len(video) if end is None else end
    if not 0 <= start < stop <= len(video):
        raise UsageError(
            f"--start {start} --end {stop}",
            f"not within the {len(video)} frames of {video.path}",
            "give 0 <= start < end <= frames",
        )
    return start, stop


@dataclass(frozen=True)
class TwoEncoders:
    """An encoder of queries, and another of the references that they read from (MAST-momentum)."""

    query: Encode
    reference: Encode

    def __call__(self, rgb: NDArray[np.uint8]) -> Tensor:
        return self.query(rgb)


def encoder(weights: checkpoint.Weights, device: torch.device | str) -> Encode:
    """The trained encoder as a function from pictures to features; ``TwoEncoders`` where references have their own."""
    query = _encoder(weights, weights.params, weights.stats, torch.device(device))
    if not (weights.slow and weights.reader.slow):
        return query
    return TwoEncoders(query, _encoder(weights, weights.slow, weights.slow_stats, torch.device(device)))


def _encoder(weights: checkpoint.Weights, params: Tensors, stats: Tensors, device: torch.device) -> Encode:
    params, stats = network.fold(*({k: v.to(device) for k, v in group.items()} for group in (params, stats)))
    bf16 = native_bf16(device)

    @lru_cache(maxsize=1)  # the frames of a video are of one size
    def position(height: int, width: int) -> Tensor | None:
        return network.place(weights.net, params, (height, width))

    def encode(rgb: NDArray[np.uint8]) -> Tensor:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            seen = color.to_space(color.from_uint8(rgb[None], device), weights.reader.space)
            place = position(*rgb.shape[:2])
            return network.apply(weights.net, params, stats, seen, train=False, position=place)[0].float()

    return encode


@dataclass
class Job:
    """One video being labelled.

    Attributes:
        video, masks: what to label, and the given labels by frame index.
        encode, reader: features, and how labels are read with them.
        short_side: reading size.
        device: where labels live.
        seconds: where the time went so far.
        stride: pixels a feature cell.
    """

    video: Video
    masks: Mapping[int, Mask]
    encode: Encode
    reader: Reader
    short_side: int
    device: torch.device
    seconds: Seconds = field(default_factory=Seconds)
    stride: int = 4

    def __post_init__(self) -> None:
        ids = np.unique(np.concatenate([np.unique(m.ids) for m in self.masks.values()]))
        self.classes = np.concatenate([[0], ids[ids > 0]]).astype(np.uint16 if ids.max() > 255 else np.uint8)
        self.size = (self.video.height, self.video.width)

    def walk(self, walk: Walk, kept: Mapping[int, Tensor] | None = None, first: int = 0) -> Iterator[Frame]:
        """Label the frames of a walk.

        Args:
            kept: label scores by position, of a walk that was interrupted (``labels_kept`` of the time), and
            first: the position to go on with.
        """
        anchor = None if walk.until is None else self._labelled(walk.until)
        refs: dict[int, Reference] = {}
        for position, label in (kept or {}).items():
            refs[position] = Reference(self._encode_reference(self._picture(walk.frames[position])), label)
        self.refs = refs
        for position, (index, rgb) in enumerate(self._pictures(walk.frames[first:]), start=first):
            if position == 0:
                refs[0] = self._reference(index, rgb)
                if walk.frames.step > 0:  # a labelled frame starts one walk forwards, and maybe one backwards
                    yield Frame(index, self.masks[index].ids.astype(self.classes.dtype))
                continue
            feature = self._encode(rgb)
            read = {position - p: refs[p] for p in memory.read_at(position, self.reader.long, self.reader.short)}
            if anchor and walk.until is not None:
                read[index - walk.until] = anchor
            label = self._read(feature, list(read.values()), list(read))
            mask = self._harden(label, rgb.shape[:2])
            if self.reader.feedback == "hard":
                label = self._cells(mask, rgb.shape[:2])
            elif self.reader.compactness:  # whose readouts sum to more than 1, and would grow from frame to frame
                label = label / label.sum(-1, keepdim=True).clamp(min=1e-6)
            refs[position] = Reference(self._encode_reference(rgb, feature), label)
            for p in refs.keys() - memory.kept_after(position, self.reader.long, self.reader.short):
                del refs[p]
            yield Frame(index, mask)

    def labels_kept(self) -> dict[int, Tensor]:
        """Label scores of the references now in memory, by position in the walk."""
        return {p: r.label for p, r in self.refs.items()}

    def seconds_a_frame(self) -> float:
        """Expected: from one frame encoded and read against itself as often as there will be references."""
        index = next(iter(self.masks))
        rgb = self._picture(index)
        count = len(self.reader.long) + len(self.reader.short)
        expected = 0.0
        for _ in range(2):  # the first time pays for warming up
            began = time.perf_counter()
            feature = self._encode(rgb)
            ref = Reference(self._encode_reference(rgb, feature), self._cells(self.masks[index].ids, rgb.shape[:2]))
            self._harden(self._read(feature, [ref] * count, [1] * count), rgb.shape[:2])
            expected = time.perf_counter() - began
        self.seconds = Seconds()
        return expected

    def _pictures(self, frames: range) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        if frames.step > 0:
            source = self.video.frames(frames.start, frames.stop, short_side=self.short_side)
            while True:
                with self.seconds.add("io"):
                    item = next(source, None)
                if item is None:
                    return
                yield item
        for last in range(frames.start, frames.stop, -CHUNK):
            with self.seconds.add("io"):
                chunk = list(
                    self.video.frames(max(last - CHUNK, frames.stop) + 1, last + 1, short_side=self.short_side)
                )
            yield from reversed(chunk)

    def _picture(self, index: int) -> NDArray[np.uint8]:
        with self.seconds.add("io"):
            return self.video.frame(index, short_side=self.short_side)

    def _encode(self, rgb: NDArray[np.uint8]) -> Tensor:
        with self.seconds.add("encoder"):
            return self.encode(rgb)

    def _encode_reference(self, rgb: NDArray[np.uint8], feature: Tensor | None = None) -> Tensor:
        """Features of a frame as a reference; ``feature``: those that it has as a query, if they are known."""
        if isinstance(self.encode, TwoEncoders):
            with self.seconds.add("encoder"):
                return self.encode.reference(rgb)
        return self._encode(rgb) if feature is None else feature

    def _labelled(self, index: int) -> Reference:
        return self._reference(index, self._picture(index))

    def _reference(self, index: int, rgb: NDArray[np.uint8]) -> Reference:
        return Reference(self._encode_reference(rgb), self._cells(self.masks[index].ids, rgb.shape[:2]))

    @torch.inference_mode()
    def _read(self, feature: Tensor, refs: Sequence[Reference], gaps: Sequence[int]) -> Tensor:
        """Label scores of cells from references that are so many frames away."""
        with self.seconds.add("read"):
            reader, keys, labels = self.reader, [r.feature for r in refs], [r.label for r in refs]
            radius, scale, border = reader.radius, reader.scale, reader.border
            if k := reader.compactness:
                return compactness.read(feature, keys, labels, peaks=k, radius=radius, scale=scale, border=border)
            offset = [
                region.offsets(feature, key, gap, search=reader.search, radius=radius, scale=scale, border=border)
                if radius is not None and 0 < reader.search < abs(gap)
                else None
                for key, gap in zip(keys, gaps, strict=True)
            ]
            return memory_read(
                feature, keys, labels, radius=radius, offset=offset, scale=scale, border=border, top_k=reader.top_k
            )

    @torch.inference_mode()
    def _cells(self, ids: Ids, size: tuple[int, ...]) -> Tensor:
        """Ids at full size -> share of each class in each cell [1 h w v]."""
        with self.seconds.add("other"):
            full = torch.from_numpy(ids.astype(np.int32)).to(self.device)
            cells = []
            for value in self.classes:  # one by one: all classes at full size may not fit in memory
                is_class = (full == int(value)).float()[None, None]
                if size != tuple(ids.shape):
                    is_class = F.interpolate(is_class, tuple(size), mode="area")
                cells.append(downsample(is_class, self.stride, alignment=self.reader.alignment))
            return torch.cat(cells, -1)

    @torch.inference_mode()
    def _harden(self, label: Tensor, size: tuple[int, ...]) -> Ids:
        """Scores of cells -> the best class of every pixel at full size, a few classes at a time."""
        with self.seconds.add("other"):
            best = choice = None
            for first in range(0, len(self.classes), SCORES):
                part = label[..., first : first + SCORES]
                scores = upsample(part, self.stride, (size[0], size[1]), alignment=self.reader.alignment)
                if tuple(size) != self.size:
                    scores = F.interpolate(scores, self.size, mode="bilinear", align_corners=False)
                top, index = scores[0].max(0)
                if best is None or choice is None:
                    best, choice = top, index
                else:
                    better = top > best
                    best, choice = torch.where(better, top, best), torch.where(better, index + first, choice)
            if choice is None:
                raise InputError("labels", "no class at all", "label an object")
            mask: Ids = self.classes[choice.cpu().numpy()]
            return mask
