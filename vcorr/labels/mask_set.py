"""The masks that are given for a video, and the folder of the masks that result."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from vcorr.errors import InputError, UsageError
from vcorr.files import make_folder, remove, sweep
from vcorr.labels.draw import colour_index
from vcorr.labels.earlier import Earlier, changed
from vcorr.labels.formats.arrays import read_ids_array
from vcorr.labels.formats.coco import is_coco
from vcorr.labels.formats.coco_masks import is_coco_video, read_coco_masks
from vcorr.labels.formats.drawings import Drawing, number_names
from vcorr.labels.formats.labelme import is_labelme, read_labelme
from vcorr.labels.formats.text import read_json
from vcorr.labels.label import MaskLabels
from vcorr.labels.mask_files import MaskFile, read_mask_file
from vcorr.labels.mask_names import NamedBy, frames_of_pictures, label_files
from vcorr.labels.masks import Mask, is_whole, overlay, read_masks, write_mask
from vcorr.labels.object_names import read_names
from vcorr.labels.raw_ids import Ids, read_ids
from vcorr.media.video import Video

S = TypeVar("S", MaskFile, Drawing)

MASKS = "masks"  # the folder of the results


@dataclass(frozen=True, eq=False)
class GivenMasks:
    """Given masks by frame index, with one set of ids; a ``given.Given``.

    Attributes:
        masks: as they were read.
        size: (height, width) of the video.
        names: the names of ids, where they have one.
    """

    masks: Mapping[int, Mask]
    size: tuple[int, int]
    names: Mapping[int, str] = field(default_factory=dict)
    kind: Literal["masks"] = "masks"

    @cached_property
    def by_frame(self) -> dict[int, Ids]:
        typed = self.labels(torch.device("cpu")).typed
        return {k: typed(mask.ids) for k, mask in self.masks.items()}

    @property
    def objects(self) -> list[int]:
        return sorted({int(i) for mask in self.masks.values() for i in np.unique(mask.ids) if i})

    @property
    def shown(self) -> list[str]:
        return [self.names.get(i, f"object {i}") for i in self.objects]

    @property
    def colours(self) -> NDArray[np.uint8]:
        palette: NDArray[np.uint8] = next(iter(self.masks.values())).palette
        colours: NDArray[np.uint8] = palette[colour_index(np.array(self.objects, int))]
        return colours

    @property
    def described(self) -> dict[str, Any]:
        names = {"names": {str(id_): name for id_, name in self.names.items()}} if self.names else {}
        return {"objects": self.objects, **names}

    def labels(self, device: torch.device) -> MaskLabels:
        return MaskLabels.of([mask.ids for mask in self.masks.values()], self.size, device)

    def digest(self, frame: int) -> str:
        return ids_digest(self.masks[frame].ids)

    def told(self, frame: int, name: str) -> str:
        return self.masks[frame].told(name)

    def store(self, out: Path) -> MaskFolder:
        return MaskFolder(out / MASKS, self.size, next(iter(self.masks.values())).palette)


def ids_digest(ids: Ids) -> str:
    """SHA-256 of a mask, of either type."""
    return hashlib.sha256(f"{ids.shape}".encode() + ids.astype("<u2").tobytes()).hexdigest()


def read_mask_set(
    video: Video,
    labels: Path,
    start: int,
    at: Mapping[int, Path],
    named_by: NamedBy | None,
    earlier: Earlier | None = None,
) -> GivenMasks:
    """Reads the masks of a video by frame index, with one set of ids (``masks.read_masks``, ``drawings.number_names``).

    Args:
        labels: an image, an array or a LabelMe file for frame ``start``; a COCO file, which names its frames; or a
            folder of images, arrays and LabelMe files, with or without the names of ids (``object_names``).
        at: one file for each further frame.
        earlier: the labels among the results of an output folder.

    Raises:
        InputError: see ``masks.read_masks``; or names of objects occur next to ids, or an earlier label is missing.
        UsageError: a frame is labelled twice, ``named_by`` is given for one image, or no label is left.
    """
    size = (video.height, video.width)
    stated_names: Mapping[int, str] = {}
    if labels.is_dir():
        named = label_files(labels, frames=len(video), frame_files=video.files, named_by=named_by)
        for path in named.values():
            if path.suffix.casefold() == ".json" and not is_labelme(read_json(path)):
                raise InputError(path, "is no LabelMe file", "give a COCO file by itself: it names its frames")
        files = {k: _stated(path, size, video, named_by, k)[k] for k, path in named.items()}
        stated_names = read_names(labels)
    else:
        if named_by is not None and labels.is_file() and labels.suffix.casefold() != ".json":
            what = f"speaks of a folder of masks, but {labels} is the mask of frame {start}"
            raise UsageError(f"--named-by {named_by}", what, "give the folder, or --start K for a mask of frame K")
        files = _stated(labels, size, video, named_by, start)
    if earlier:
        files = {k: source for k, source in files.items() if k not in earlier.without}
    corrections: dict[int, Path | MaskFile | Drawing] = {}
    for k, path in at.items():
        if k in files:
            what = f"frame {k} is labelled by {_path(files[k])} already"
            raise UsageError(f"--at {k}={path}", what, "give one of the two")
        found = _stated(path, size, video, named_by, k)
        if k not in found:
            raise InputError(path, f"labels frame {min(found)}, not frame {k}", f"say --at {min(found)}={path}")
        corrections[k] = found[k]
    drawings = [s for s in (*files.values(), *corrections.values()) if isinstance(s, Drawing)]
    ids = number_names(drawings, earlier)
    names = {id_: name for name, id_ in ids.items() if name != str(id_)}
    if names and len(drawings) < len(files) + len(corrections):
        other = next(_path(s) for s in (*files.values(), *corrections.values()) if not isinstance(s, Drawing))
        name = next(iter(names.values()))
        what = f"has ids, but {drawings[0].path} names its objects ({name}): which is which cannot be told"
        raise InputError(other, what, "name the objects by their ids, 1, 2, ...")

    def numbered(sources: Mapping[int, Path | MaskFile | Drawing]) -> dict[int, str | Path | MaskFile]:
        return {k: s.as_file(ids) if isinstance(s, Drawing) else s for k, s in sources.items()}

    kept = _kept(earlier, files.keys() | corrections.keys(), size) if earlier else {}
    if not (files or corrections or kept):
        raise UsageError("--without", "takes the last label back", "leave one frame labelled, or remove the folder")
    masks = read_masks(numbered(files), numbered(corrections), kept=kept, size=size)
    names = {
        i: name for i, name in stated_names.items() if any((mask.ids == i).any() for mask in masks.values())
    } | names
    if earlier and kept:
        present = {int(i) for mask in masks.values() for i in np.unique(mask.ids)}
        names = {i: name for i, name in earlier.names.items() if i in present} | names
    if earlier and earlier.partial:
        masks |= {k: _completed(masks[k], mask_file(earlier.out / MASKS, k), size) for k in at}
    if names:
        masks = {k: replace(mask, shown={**mask.shown, **names}) for k, mask in masks.items()}
    given = GivenMasks(masks, size, names)
    if earlier:
        earlier.verify(kept, lambda k: kept[k].path, given.digest)
    return given


def _completed(mask: Mask, path: Path, size: tuple[int, int]) -> Mask:
    """A mask that states its objects alone, on the result of its frame.

    Raises:
        InputError: there is no result, or it is damaged.
    """
    before = read_ids(path, size)
    there = mask.ids > 0
    ids: Ids = np.where(there, mask.ids, before)
    note = f"states {np.count_nonzero(there)} pixels; the rest stays as {path} has it"
    return replace(mask, ids=ids, notes=(*mask.notes, note))


def _kept(earlier: Earlier, others: Collection[int], size: tuple[int, int]) -> dict[int, MaskFile]:
    """Reads the labels that stay from the results of an output folder, by frame index."""
    kept = {}
    for k in earlier.digests.keys() - others:
        path = mask_file(earlier.out / MASKS, k)
        try:
            kept[k] = read_mask_file(path, size)
        except InputError as error:
            raise changed(path, k, error.what) from error
        if kept[k].kind != "ids" and kept[k].objects.size:
            raise changed(path, k, "another program wrote it")
    return kept


def _stated(
    path: Path, size: tuple[int, int], video: Video, named_by: NamedBy | None, alone: int
) -> dict[int, Path | MaskFile | Drawing]:
    """Reads a file's labels by frame index: ``alone``, unless the file names its frames."""
    suffix = path.suffix.casefold()
    if suffix == ".npy":
        return {alone: _fitting(path, read_ids_array(path), size)}
    if suffix != ".json":
        return {alone: path}
    data = read_json(path)
    if is_labelme(data):
        return {alone: _fitting(path, read_labelme(path, data), size)}
    if not is_coco(data) and not is_coco_video(data):
        raise InputError(path, "is neither LabelMe nor COCO", "give masks as images, arrays, LabelMe or COCO")
    drawings = read_coco_masks(path, data)
    if not drawings:
        raise InputError(path, "holds no mask", "draw the objects of one frame")
    pictures = [drawing.picture for drawing in drawings]
    found = frames_of_pictures(
        path, pictures, frames=len(video), frame_files=video.files, named_by=named_by, alone=alone
    )
    return {found[drawing.picture]: _fitting(path, drawing, size) for drawing in drawings}


def _fitting(path: Path, source: S, size: tuple[int, int]) -> S:
    """Returns the source, if it has the size (height, width) of the video; else raises an InputError."""
    height, width = source.size if isinstance(source, Drawing) else source.codes.shape
    if (height, width) != size:
        what = f"is {width}x{height}, but the video is {size[1]}x{size[0]}"
        raise InputError(path, what, "label a frame of full size, as `vcorr frame VIDEO 0 frame.png` writes it")
    return source


def _path(source: Path | MaskFile | Drawing) -> Path:
    return source if isinstance(source, Path) else source.path


@dataclass(frozen=True, eq=False)
class MaskFolder:
    """Results as one PNG for each frame, named by frame index; a ``given.Store``.

    Attributes:
        path: the folder.
        size: (height, width) of the masks.
        palette: uint8 [256 3], the colours of the ids.
    """

    path: Path
    size: tuple[int, int]
    palette: NDArray[np.uint8]

    def prepare(self) -> None:
        make_folder(self.path)
        sweep(self.path)

    def missing(self, frames: Iterable[int]) -> set[int]:
        return {k for k in frames if not is_whole(self._file(k), self.size)}

    def write(self, index: int, label: Ids) -> None:
        if not is_whole(self._file(index), label.shape):
            write_mask(self._file(index), label, self.palette)

    def read(self, index: int) -> Ids:
        return read_ids(self._file(index))

    def revise(self, frames: Collection[int], labels: Mapping[int, Ids], before: Sequence[int] | Sequence[str]) -> None:
        make_folder(self.path)
        for k, label in labels.items():
            write_mask(self._file(k), label, self.palette)
        for k in set(frames) - labels.keys():
            remove(self._file(k))

    def finish(self, frames: Iterable[int]) -> None:
        pass

    def drawn(self, index: int, rgb: NDArray[np.uint8], *, opacity: float = 0.5) -> NDArray[np.uint8]:
        height, width = rgb.shape[:2]
        drawn: NDArray[np.uint8] = overlay(rgb, _shrunk(self.read(index), height, width), self.palette, opacity=opacity)
        return drawn

    def _file(self, index: int) -> Path:
        return mask_file(self.path, index)


def mask_file(folder: Path, index: int) -> Path:
    """The path of a frame's mask in a folder of results."""
    return folder / f"{index:05d}.png"


def _shrunk(ids: Ids, height: int, width: int) -> Ids:
    if ids.shape == (height, width):
        return ids
    rows = (np.arange(height) + 0.5) * (ids.shape[0] / height)
    columns = (np.arange(width) + 0.5) * (ids.shape[1] / width)
    shrunk: Ids = ids[rows.astype(int)[:, None], columns.astype(int)]
    return shrunk
