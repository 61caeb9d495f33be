"""Value layers: any numbers of pixels, such as an edge map or a texture, carried as they are.

A channel of the cells is a channel of the layer: the mean of a cell's pixels, and bilinear on the way back. Values may
be negative, and need not sum to anything. Results are arrays as they were given, a file a frame: ``values/00000.npy``.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vcorr.errors import InputError, UsageError
from vcorr.files import make_folder, remove, replacing, sweep
from vcorr.labels.draw import point_colours
from vcorr.labels.earlier import Earlier, changed
from vcorr.labels.formats.arrays import array_type, read_array
from vcorr.labels.label import Side
from vcorr.labels.mask_names import NamedBy, label_files
from vcorr.matching.cells import Grid
from vcorr.media.video import Video

VALUES = "values"
AT_ONCE = 8  # channels upsampled to full size at a time

Layer = NDArray[np.floating[Any]]
"""[H W] or [H W K]."""


@dataclass(frozen=True, eq=False)
class SoftLabels:
    """Value layers of a video; a ``label.Labels``.

    Attributes:
        shape, dtype: of the layers. device: of the computation.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    device: torch.device

    background = False

    @property
    def size(self) -> tuple[int, int]:
        return self.shape[0], self.shape[1]

    @property
    def channels(self) -> int:
        return self.shape[2] if len(self.shape) == 3 else 1

    def to_cells(self, label: Layer, grid: Grid) -> Tensor:
        """Means of pixels [1 h w v]."""
        layers = label.reshape(*self.size, self.channels)
        cells = [
            grid.downsample(torch.from_numpy(layers[..., k].astype(np.float32)).to(self.device)[None, None])
            for k in range(self.channels)
        ]
        return torch.cat(cells, -1)

    def from_cells(self, cells: Tensor, grid: Grid) -> Layer:
        layer = np.empty((*self.size, self.channels), self.dtype)
        for first in range(0, self.channels, AT_ONCE):
            some = grid.upsample(cells[..., first : first + AT_ONCE])[0].permute(1, 2, 0)
            layer[..., first : first + AT_ONCE] = some.cpu().numpy()
        return layer.reshape(self.shape)

    def thickness(self, label: Layer) -> float:
        return math.inf

    def side(self, values: Tensor, grid: Grid, start: Layer) -> Side:
        """float32 [h w v]."""
        side: NDArray[np.float32] = values[0].float().cpu().numpy()
        return side

    def blend(self, near: Side, far: Side, share: float, grid: Grid) -> Layer:
        mixed = (1 - share) * torch.from_numpy(near) + share * torch.from_numpy(far)
        return self.from_cells(mixed[None].to(self.device), grid)


@dataclass(frozen=True, eq=False)
class GivenSoft:
    """Given value layers by frame index; a ``given.Given``.

    Attributes:
        by_frame: of one shape and type. files: of each.
    """

    by_frame: Mapping[int, Layer]
    files: Mapping[int, Path]
    kind: Literal["soft"] = "soft"

    @property
    def first(self) -> Layer:
        return next(iter(self.by_frame.values()))

    @property
    def objects(self) -> list[str]:
        return [f"channel {k}" for k in range(self.first.shape[2] if self.first.ndim == 3 else 1)]

    @property
    def shown(self) -> list[str]:
        return self.objects

    @property
    def colours(self) -> NDArray[np.uint8]:
        colours: NDArray[np.uint8] = point_colours(len(self.objects))
        return colours

    @property
    def described(self) -> dict[str, Any]:
        return {"objects": self.objects}

    @cached_property
    def range(self) -> tuple[float, float]:
        """The smallest and the largest value that was given."""
        return min(float(v.min()) for v in self.by_frame.values()), max(float(v.max()) for v in self.by_frame.values())

    def labels(self, device: torch.device) -> SoftLabels:
        return SoftLabels(self.first.shape, self.first.dtype, device)

    def digest(self, frame: int) -> str:
        layer = self.by_frame[frame]
        return hashlib.sha256(f"{layer.shape} {layer.dtype.str}".encode() + layer.tobytes()).hexdigest()

    def told(self, frame: int, name: str) -> str:
        layer = self.by_frame[frame]
        count = len(self.objects)
        said = f"{count} channel{'s' * (count != 1)} of {layer.dtype}, {layer.min():g} to {layer.max():g}"
        return f"{self.files[frame]} labels frame {name}: {said}"

    def store(self, out: Path) -> LayerFolder:
        return LayerFolder(out / VALUES, self.first.shape, self.first.dtype, self.range)


def read_soft(
    video: Video,
    labels: Path,
    start: int,
    at: Mapping[int, Path],
    named_by: NamedBy | None,
    earlier: Earlier | None = None,
) -> GivenSoft:
    """Reads the value layers of a video by frame index.

    Args:
        labels: an array for frame ``start``, or a folder of them. at: one for each further frame.
        earlier: the labels among the results of an output folder.

    Raises:
        InputError: an array cannot be read, is of another size or channels, or holds what is no finite number.
        UsageError: a frame is labelled twice, or no label is left.
    """
    if earlier and earlier.partial:
        raise UsageError("--partial", "value layers state every pixel", "leave it out")
    if labels.is_dir():
        files = label_files(labels, frames=len(video), frame_files=video.files, named_by=named_by)
    else:
        files = {start: labels}
    if earlier:
        files = {k: path for k, path in files.items() if k not in earlier.without}
    for k, path in at.items():
        if k in files:
            raise UsageError(f"--at {k}={path}", f"frame {k} is labelled by {files[k]} already", "give one of the two")
    files |= at
    read = {k: _layer(path, (video.height, video.width)) for k, path in files.items()}
    kept = {k: earlier.out / VALUES / f"{k:05d}.npy" for k in earlier.digests.keys() - files} if earlier else {}
    for k, path in kept.items():
        try:
            read[k] = _layer(path, (video.height, video.width))
        except InputError as error:
            raise changed(path, k, error.what) from error
    if not read:
        raise UsageError("--without", "takes the last label back", "leave one frame labelled, or remove the folder")
    files |= kept
    shapes = {layer.shape for layer in read.values()}
    if len(shapes) > 1:
        k = next(k for k in sorted(read) if read[k].shape != read[min(read)].shape)
        what = f"has shape {read[k].shape}, but {files[min(read)]} has {read[min(read)].shape}"
        raise InputError(files[k], what, "save the same channels for every frame")
    dtype = np.result_type(*(layer.dtype for layer in read.values()))
    by_frame = {k: np.ascontiguousarray(read[k].astype(dtype, copy=False)) for k in sorted(read)}
    given = GivenSoft(by_frame, files)
    if earlier:
        earlier.verify(kept, kept.__getitem__, given.digest)
    return given


def holds_values(path: Path) -> bool:
    """Whether a file, or a folder's first array, holds numbers that are no ids."""
    if path.is_dir():
        try:
            arrays = sorted(p for p in path.iterdir() if p.suffix.casefold() == ".npy" and p.name[0] != ".")
        except OSError:
            return False  # whoever reads it says why
        return bool(arrays) and holds_values(arrays[0])
    return path.suffix.casefold() == ".npy" and path.is_file() and array_type(path).kind == "f"


def _layer(path: Path, size: tuple[int, int]) -> Layer:
    if path.suffix.casefold() != ".npy":
        raise InputError(path, "is no array", "save value layers by numpy.save, as numbers [H W] or [H W K]")
    array = read_array(path)
    if array.dtype.kind != "f" or array.ndim > 3:
        sides = "x".join(map(str, array.shape))
        raise InputError(path, f"is an array {sides} of {array.dtype}", "save floating-point numbers [H W] or [H W K]")
    if array.shape[:2] != size:
        what = f"is {array.shape[1]}x{array.shape[0]}, but the video is {size[1]}x{size[0]}"
        raise InputError(path, what, "label a frame of full size, as `vcorr frame VIDEO 0 frame.png` writes it")
    if not np.isfinite(array).all():
        raise InputError(path, "holds NaN or infinite values", "put a number in their place")
    return array


@dataclass(frozen=True, eq=False)
class LayerFolder:
    """Results as one array for each frame, named by frame index; a ``given.Store``.

    Attributes:
        path: the folder. shape, dtype: of the arrays.
        span: values that are drawn as nothing and as full colour.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    span: tuple[float, float]

    def prepare(self) -> None:
        make_folder(self.path)
        sweep(self.path)

    def missing(self, frames: Iterable[int]) -> set[int]:
        return {k for k in frames if not self._is_whole(self._file(k))}

    def write(self, index: int, label: Layer) -> None:
        if not self._is_whole(self._file(index)):
            self._save(index, label)

    def read(self, index: int) -> Layer:
        layer: Layer = read_array(self._file(index))
        return layer

    def revise(
        self, frames: Collection[int], labels: Mapping[int, Layer], before: Sequence[int] | Sequence[str]
    ) -> None:
        make_folder(self.path)
        for k, label in labels.items():
            self._save(k, label)
        for k in set(frames) - labels.keys():
            remove(self._file(k))

    def finish(self, frames: Iterable[int]) -> None:
        pass

    def drawn(self, index: int, rgb: NDArray[np.uint8], *, opacity: float = 0.5) -> NDArray[np.uint8]:
        """The picture, darkened, with each channel in its colour."""
        layer = self.read(index).astype(np.float32).reshape(*self.shape[:2], -1)
        rows, columns = (
            ((np.arange(n) + 0.5) * (m / n)).astype(int) for n, m in zip(rgb.shape, layer.shape[:2], strict=False)
        )
        low, high = self.span
        share = np.clip((layer[rows[:, None], columns] - low) / max(high - low, 1e-12), 0, 1)
        colours = point_colours(layer.shape[2]).astype(np.float32)
        total = share.sum(-1, keepdims=True)
        mixed = share @ colours / np.maximum(total, 1e-6)
        weight = np.minimum(total, 1) * max(opacity, 0.3)
        drawn: NDArray[np.uint8] = np.rint((1 - weight) * rgb + weight * mixed).astype(np.uint8)
        return drawn

    def _file(self, index: int) -> Path:
        return self.path / f"{index:05d}.npy"

    def _save(self, index: int, label: Layer) -> None:
        with replacing(self._file(index)) as file:
            np.save(file, label, allow_pickle=False)

    def _is_whole(self, path: Path) -> bool:
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return False
        return bool(array.shape == self.shape and array.dtype == self.dtype)
