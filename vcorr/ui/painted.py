"""Masks that are painted: a PNG a labelled frame in ``OUT/labels``. A stroke is on the disk when it is answered."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vcorr.errors import InputError, OutputError, UsageError
from vcorr.files import remove, replacing
from vcorr.labels.draw import default_palette
from vcorr.labels.mask_set import MASKS, ids_digest, mask_file
from vcorr.labels.masks import is_whole, write_mask
from vcorr.labels.raw_ids import Ids, read_ids
from vcorr.propagation.confidence import confidence
from vcorr.propagation.confidence_table import TABLE as CONFIDENCE
from vcorr.propagation.confidence_table import ConfidenceTable
from vcorr.propagation.update import labels_of
from vcorr.ui.label_folder import BEFORE, LabelFolder, cannot_write

KEEP = 65535  # of a pixel that a stroke does not touch; no id


@dataclass(frozen=True)
class Patch:
    """What a stroke changes in a rectangle of a mask.

    Attributes:
        x, y: of its top left pixel. ids: [h w], ``KEEP`` where nothing changes.
    """

    x: int
    y: int
    ids: Ids


@dataclass
class Painted(LabelFolder):
    """Masks of a video; see ``LabelFolder``."""

    kind = "masks"
    _objects_in: dict[str, list[int]] = field(default_factory=dict)  # by digest of a label

    def file(self, k: int) -> Path:
        return mask_file(self.folder, k)

    def results(self, manifest: Mapping[str, Any] | None) -> set[int]:
        try:
            names = [path.name for path in (self.out / MASKS).iterdir()]
        except FileNotFoundError:
            names = []
        except OSError as error:
            raise OutputError(self.out, f"cannot be read ({error.strerror})", "check its rights") from error
        found = {int(name[:-4]) for name in names if name.endswith(".png") and name[:-4].isdecimal()}
        return found & set(self.frames)

    def wrote(self, k: int, label: Any) -> None:
        pass  # its file is there

    def confidence(self, manifest: Mapping[str, Any], cuts: Collection[int]) -> tuple[list[int], NDArray[np.float64]]:
        ids = [int(i) for i in manifest["objects"]]
        table = ConfidenceTable(self.out / CONFIDENCE, ids, self.frames)
        table.missing()  # reads it
        labels = sorted((k, label) for k, label in labels_of(manifest).items() if k in self.frames)
        given = {k: np.isin(ids, self._shown(k, label)) for k, label in labels}
        if not given:
            return [], np.empty((len(self.frames), 0))
        return ids, confidence(table.signals, self.frames, given, sorted(cuts))

    def mask(self, k: int) -> Ids:
        """The mask that the page shows of a frame: painted, or propagated, or empty.

        Raises:
            InputError: what was painted is damaged.
        """
        if k in self.digests:
            return self._label(k)
        try:
            return read_ids(self._result(k), self.size)
        except InputError:
            return np.zeros(self.size, np.uint8)

    def png(self, k: int) -> bytes | None:
        """The file of that mask; None where it is empty."""
        path = self.file(k) if k in self.digests else self._result(k)
        return path.read_bytes() if is_whole(path, self.size) else None

    def keep_before(self, frames: Collection[int]) -> None:
        folder = self.folder / BEFORE
        try:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            for k in frames:
                if self._result(k).exists():
                    shutil.copyfile(self._result(k), mask_file(folder, k))
        except OSError as error:
            raise cannot_write(folder, error) from error

    def before(self, k: int) -> bytes | None:
        """The file of a frame's result as it was before the last correction; None where that left it as it was."""
        path = mask_file(self.folder / BEFORE, k)
        return path.read_bytes() if is_whole(path, self.size) else None

    def paint(self, k: int, patch: Patch) -> None:
        """Put a patch into the mask of a frame, which is a label from now on.

        Raises:
            UsageError: the patch lies outside the frame.
            OutputError: the disk is full, or the folder cannot be written. The mask is as it was.
        """
        height, width = patch.ids.shape
        if patch.x < 0 or patch.y < 0 or patch.x + width > self.size[1] or patch.y + height > self.size[0]:
            raise UsageError("patch", "lies outside the frame", "send what lies inside")
        ids = self.mask(k).astype(np.uint16)
        inside = ids[patch.y : patch.y + height, patch.x : patch.x + width]
        np.copyto(inside, patch.ids, where=patch.ids != KEEP)
        kept: Ids = ids if ids.max(initial=0) > 255 else ids.astype(np.uint8)
        write_mask(self.file(k), kept, self._palette())
        self.digests[k] = ids_digest(kept)

    def take_back(self, k: int) -> None:
        remove(self.file(k))
        self.digests.pop(k, None)

    def forget(self, id_: int) -> set[int]:
        changed = set()
        for k in sorted(self.digests):
            ids = self.mask(k)
            if (found := ids == id_).any():
                self.paint(k, Patch(0, 0, np.where(found, 0, KEEP).astype(np.uint16)))
                changed.add(k)
        self.names.pop(id_, None)
        self.colours.pop(id_, None)
        self._write()
        return changed

    def _read_labels(self) -> None:
        self.digests = {k: ids_digest(self._label(k)) for k in self.frames if self.file(k).exists()}

    def _adopt(self, frames: Collection[int]) -> set[int]:
        whole = {k for k in frames if is_whole(self._result(k), self.size)}  # of others the next run tells
        for k in whole:
            with replacing(self.file(k)) as file:
                file.write(self._result(k).read_bytes())
        return whole

    def _name(self, manifest: Mapping[str, Any]) -> None:
        self.names = {int(i): str(name) for i, name in manifest.get("names", {}).items()} | self.names
        for i in manifest["objects"]:
            self.names.setdefault(int(i), "")

    def _shown(self, k: int, label: str) -> list[int]:
        """Ids that a label of the results shows; ``label`` is its SHA-256."""
        if label not in self._objects_in:
            self._objects_in[label] = [int(i) for i in np.unique(read_ids(self._result(k))) if i]
        return self._objects_in[label]

    def _label(self, k: int) -> Ids:
        return read_ids(self.file(k), self.size)

    def _result(self, k: int) -> Path:
        return mask_file(self.out / MASKS, k)

    def _palette(self) -> np.ndarray:
        """The colours of the results, so that their files agree."""
        for path in (*map(self.file, self.digests), self._result(self.frames.start)):
            try:
                with Image.open(path, formats=["PNG"]) as image:
                    if image.mode == "P" and len(palette := image.getpalette() or []) == 768:
                        return np.array(palette, np.uint8).reshape(256, 3)
            except OSError:
                continue
        return default_palette()
