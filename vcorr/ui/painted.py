"""``OUT/labels``: what was painted, a mask a frame, and ``objects.json``. A stroke is on the disk when it is answered.

The folder is LABELS for ``vcorr propagate``. It holds all labels of the results, those too that were given on the
command line: ``seen`` in ``objects.json`` says which labels the results had when the two last agreed, so that what
either side changed since is told apart. Where both changed a frame, what was painted stands.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vcorr.errors import InputError, OutputError, UsageError
from vcorr.files import make_folder, remove, replacing, sweep, write_json
from vcorr.labels.draw import default_palette
from vcorr.labels.formats.text import read_json
from vcorr.labels.mask_ids import MAX_ID
from vcorr.labels.mask_set import ids_digest, mask_file
from vcorr.labels.masks import is_whole, write_mask
from vcorr.labels.object_names import NAMES
from vcorr.labels.raw_ids import Ids, read_ids
from vcorr.propagation.update import labels_of

KEEP = 65535  # of a pixel that a stroke does not touch; no id
BEFORE = ".before"  # beside the labels: results that the last correction redid
MAX_NAME = 100  # characters
MAX_OBJECTS = 4096


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
class Painted:
    """The labels of a video that is painted on.

    Args:
        folder: of the labels. results: of the masks that were propagated.
        size: (height, width) of the video. frames: those that may be labelled.

    Attributes:
        names, colours: of objects, by id; a colour is ``#rrggbb`` and for the page alone.
        digests: SHA-256 of each label, by frame index, as in a manifest.
    """

    folder: Path
    results: Path
    size: tuple[int, int]
    frames: range
    names: dict[int, str] = field(default_factory=dict)
    colours: dict[int, str] = field(default_factory=dict)
    digests: dict[int, str] = field(default_factory=dict)
    _seen: dict[int, str] = field(default_factory=dict)

    def open(self, manifest: Mapping[str, Any] | None) -> None:
        """Make the folder, or read it; take over what the results say that it does not know yet.

        Raises:
            InputError: ``objects.json`` or a mask is damaged. OutputError: the folder cannot be written.
        """
        make_folder(self.folder)
        sweep(self.folder)
        if (self.folder / NAMES).is_file():
            self._read(read_json(self.folder / NAMES))
        self.digests = {k: ids_digest(self._label(k)) for k in self.frames if mask_file(self.folder, k).exists()}
        if manifest is not None:
            self._take_over(manifest)
        self._write()

    def mask(self, k: int) -> Ids:
        """The mask that the page shows of a frame: painted, or propagated, or empty.

        Raises:
            InputError: what was painted is damaged.
        """
        if k in self.digests:
            return self._label(k)
        try:
            return read_ids(mask_file(self.results, k), self.size)
        except InputError:
            return np.zeros(self.size, np.uint8)

    def png(self, k: int) -> bytes | None:
        """The file of that mask; None where it is empty."""
        path = mask_file(self.folder if k in self.digests else self.results, k)
        return path.read_bytes() if is_whole(path, self.size) else None

    def keep_before(self, frames: Collection[int]) -> None:
        """Keep the results of frames that are about to be redone, in place of those that were kept before.

        Raises:
            OutputError: they cannot be kept.
        """
        folder = self.folder / BEFORE
        try:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            for k in frames:
                source = mask_file(self.results, k)
                if source.exists():
                    shutil.copyfile(source, mask_file(folder, k))
        except OSError as error:
            what = f"cannot be written ({error.strerror})"
            raise OutputError(folder, what, "check the folder, its rights and the free space") from error

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
        write_mask(mask_file(self.folder, k), kept, self._palette())
        self.digests[k] = ids_digest(kept)

    def take_back(self, k: int) -> None:
        """Frame k is a labelled frame no more.

        Raises:
            OutputError: the folder cannot be written.
        """
        remove(mask_file(self.folder, k))
        self.digests.pop(k, None)

    def describe(self, id_: int, name: str | None = None, colour: str | None = None) -> None:
        """Name an object, or give it a colour, for good.

        Raises:
            UsageError: too long a name, or too many. OutputError: the folder cannot be written.
        """
        if not 1 <= id_ <= MAX_ID or (id_ not in self.names and len(self.names) >= MAX_OBJECTS):
            raise UsageError(f"object {id_}", f"ids are 1 to {MAX_ID}, of {MAX_OBJECTS} objects", "choose another")
        if name is not None:
            if len(name) > MAX_NAME:
                raise UsageError("name", f"has more than {MAX_NAME} characters", "shorten it")
            self.names[id_] = name
        if colour is not None:
            self.colours[id_] = colour
        self._write()

    def forget(self, id_: int) -> set[int]:
        """Delete an object: from the list, and from all labels.

        Returns:
            The frames whose labels changed.

        Raises:
            OutputError: the folder cannot be written; some labels are without it then.
        """
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

    def agree(self, manifest: Mapping[str, Any]) -> None:
        """The results are made from these labels now."""
        self._seen = labels_of(manifest)
        self._write()

    def taken_back(self, manifest: Mapping[str, Any]) -> set[int]:
        """Labels of the results that are labels no more."""
        return {k for k in labels_of(manifest) if k in self.frames} - self.digests.keys()

    def _take_over(self, manifest: Mapping[str, Any]) -> None:
        theirs = {k: d for k, d in labels_of(manifest).items() if k in self.frames}
        for k in self._seen.keys() - theirs.keys():
            if self.digests.get(k) == self._seen[k]:
                self.take_back(k)
        for k, label in theirs.items():
            if label != self._seen.get(k) and self.digests.get(k) == self._seen.get(k):
                source = mask_file(self.results, k)
                if is_whole(source, self.size):  # else the next run tells
                    with replacing(mask_file(self.folder, k)) as file:
                        file.write(source.read_bytes())
                    self.digests[k] = label
        self.names = {int(i): str(name) for i, name in manifest.get("names", {}).items()} | self.names
        for i in manifest["objects"]:
            self.names.setdefault(int(i), "")
        self._seen = theirs

    def _label(self, k: int) -> Ids:
        return read_ids(mask_file(self.folder, k), self.size)

    def _palette(self) -> np.ndarray:
        """The colours of the results, so that their files agree."""
        for path in (*(mask_file(self.folder, k) for k in self.digests), mask_file(self.results, self.frames.start)):
            try:
                with Image.open(path, formats=["PNG"]) as image:
                    if image.mode == "P" and len(palette := image.getpalette() or []) == 768:
                        return np.array(palette, np.uint8).reshape(256, 3)
            except OSError:
                continue
        return default_palette()

    def _read(self, data: Mapping[str, Any]) -> None:
        try:
            self.names = {int(k): str(v) for k, v in data.get("names", {}).items()}
            self.colours = {int(k): str(v) for k, v in data.get("colours", {}).items()}
            self._seen = {int(k): str(v) for k, v in data.get("seen", {}).items()}
        except (AttributeError, ValueError):
            what, advice = "is damaged, or not of vcorr", "remove it; the masks beside it stay"
            raise InputError(self.folder / NAMES, what, advice) from None

    def _write(self) -> None:
        data = {"names": self.names, "colours": self.colours, "seen": self._seen}
        write_json(self.folder / NAMES, {key: {str(k): v for k, v in of.items()} for key, of in data.items()})
