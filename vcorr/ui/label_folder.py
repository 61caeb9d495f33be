"""``OUT/labels``: what a person labelled in the page, of one kind (``painted``, ``placed``), and ``objects.json``.

The folder is LABELS for ``vcorr propagate``. It holds all labels of the results, those too that were given on the
command line: ``seen`` in ``objects.json`` says which labels the results had when the two last agreed, so that what
either side changed since is told apart. Where both changed a frame, what was labelled in the page stands.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vcorr.errors import InputError, OutputError, UsageError
from vcorr.files import make_folder, sweep, write_json
from vcorr.labels.draw import point_colours
from vcorr.labels.formats.text import read_json
from vcorr.labels.given import Kind
from vcorr.labels.mask_ids import MAX_ID
from vcorr.labels.object_names import NAMES
from vcorr.propagation.update import labels_of

BEFORE = ".before"  # beside the labels: results that the last correction redid
MAX_NAME = 100  # characters
MAX_OBJECTS = 4096


@dataclass
class LabelFolder(ABC):
    """The labels of a video.

    Args:
        folder: of the labels. out: of the results.
        size: (height, width) of the video. frames: those that may be labelled.

    Attributes:
        names, colours: of objects or points, by id; a colour is ``#rrggbb`` and for the page alone.
        digests: SHA-256 of each label, by frame index, as in a manifest.
    """

    kind: ClassVar[Kind]

    folder: Path
    out: Path
    size: tuple[int, int]
    frames: range
    names: dict[int, str] = field(default_factory=dict)
    colours: dict[int, str] = field(default_factory=dict)
    digests: dict[int, str] = field(default_factory=dict)
    _seen: dict[int, str] = field(default_factory=dict)

    def open(self, manifest: Mapping[str, Any] | None) -> None:
        """Make the folder, or read it; take over what the results say that it does not know yet.

        Raises:
            InputError: ``objects.json`` or a label is damaged. OutputError: the folder cannot be written.
        """
        make_folder(self.folder)
        sweep(self.folder)
        if kind_in(self.folder) == self.kind:
            self._read(read_json(self.folder / NAMES))
        self._read_labels()
        if manifest is not None:
            self._take_over(manifest)
        self._write()

    def begin(self) -> None:
        """Take the place of labels of the other kind, of which none is left.

        Raises:
            OutputError: the folder cannot be written.
        """
        make_folder(self.folder)
        self._write()

    @abstractmethod
    def file(self, k: int) -> Path:
        """The file that holds the label of frame k, as ``--at K=FILE`` takes it."""

    @abstractmethod
    def results(self, manifest: Mapping[str, Any] | None) -> set[int]:
        """Look which frames have a result by now.

        Raises:
            OutputError: the folder of the results cannot be read.
        """

    @abstractmethod
    def wrote(self, k: int, label: Any) -> None:
        """Take the result that a frame has from now on."""

    @abstractmethod
    def confidence(self, manifest: Mapping[str, Any], cuts: Collection[int]) -> tuple[list[int], NDArray[np.float64]]:
        """Ids of the objects, and how sure each is in each frame [frames objects]; NaN where that is not known."""

    @abstractmethod
    def keep_before(self, frames: Collection[int]) -> None:
        """Keep the results of frames that are about to be redone, in place of those that were kept before.

        Raises:
            OutputError: they cannot be kept.
        """

    @abstractmethod
    def take_back(self, k: int) -> None:
        """Frame k is a labelled frame no more.

        Raises:
            OutputError: the folder cannot be written.
        """

    @abstractmethod
    def forget(self, id_: int) -> set[int]:
        """Delete an object: from the list, and from all labels.

        Returns:
            The frames whose labels changed.

        Raises:
            OutputError: the folder cannot be written; some labels are without it then.
        """

    def objects(self) -> list[dict[str, Any]]:
        """Id, name and colour of each object, as pages are told."""
        colours = point_colours(255).tolist()
        return [
            {
                "id": i,
                "name": name,
                "colour": self.colours.get(i) or "#{:02x}{:02x}{:02x}".format(*colours[(i - 1) % 255]),
            }
            for i, name in sorted(self.names.items())
        ]

    def describe(self, id_: int, name: str | None = None, colour: str | None = None) -> set[int]:
        """Name an object, or give it a colour, for good.

        Returns:
            The frames whose labels are others by that.

        Raises:
            UsageError: a name that cannot be, or too many. OutputError: the folder cannot be written.
        """
        if not 1 <= id_ <= MAX_ID or (id_ not in self.names and len(self.names) >= MAX_OBJECTS):
            raise UsageError(f"object {id_}", f"ids are 1 to {MAX_ID}, of {MAX_OBJECTS} objects", "choose another")
        changed: set[int] = set()
        if name is not None:
            if len(name) > MAX_NAME:
                raise UsageError("name", f"has more than {MAX_NAME} characters", "shorten it")
            changed = self._rename(id_, name)
        if colour is not None:
            self.colours[id_] = colour
        self._write()
        return changed

    def agree(self, manifest: Mapping[str, Any]) -> None:
        """The results are made from these labels now."""
        self._seen = labels_of(manifest)
        self._write()

    def taken_back(self, manifest: Mapping[str, Any]) -> set[int]:
        """Labels of the results that are labels no more."""
        return {k for k in labels_of(manifest) if k in self.frames} - self.digests.keys()

    # --- for the kinds ------------------------------------------------------------------------------------------------

    @abstractmethod
    def _read_labels(self) -> None:
        """Read the labels, and their digests."""

    @abstractmethod
    def _adopt(self, frames: Collection[int]) -> set[int]:
        """Make the results of frames, which are labels there, labels here; those that are whole."""

    @abstractmethod
    def _name(self, manifest: Mapping[str, Any]) -> None:
        """Name the objects of results that have no name here."""

    def _rename(self, id_: int, name: str) -> set[int]:
        """Name an object; the frames whose labels are others by that."""
        self.names[id_] = name
        return set()

    def _take_over(self, manifest: Mapping[str, Any]) -> None:
        self._name(manifest)
        theirs = {k: d for k, d in labels_of(manifest).items() if k in self.frames}
        for k in self._seen.keys() - theirs.keys():
            if self.digests.get(k) == self._seen[k]:
                self.take_back(k)
        others = {k for k, d in theirs.items() if d != self._seen.get(k) and self.digests.get(k) == self._seen.get(k)}
        for k in self._adopt(others):
            self.digests[k] = theirs[k]
        self._seen = theirs

    def _read(self, data: Mapping[str, Any]) -> None:
        try:
            self.names = {int(k): str(v) for k, v in data.get("names", {}).items()}
            self.colours = {int(k): str(v) for k, v in data.get("colours", {}).items()}
            self._seen = {int(k): str(v) for k, v in data.get("seen", {}).items()}
        except (AttributeError, ValueError):
            what, advice = "is damaged, or not of vcorr", "remove it; the labels beside it stay"
            raise InputError(self.folder / NAMES, what, advice) from None

    def _write(self) -> None:
        data = {"names": self.names, "colours": self.colours, "seen": self._seen}
        texts = {key: {str(k): v for k, v in of.items()} for key, of in data.items()}
        write_json(self.folder / NAMES, {"kind": self.kind, **texts})


def kind_in(folder: Path) -> Kind | None:
    """The kind of labels that a folder holds; None where it is not there yet.

    Raises:
        InputError: ``objects.json`` is damaged.
    """
    path = folder / NAMES
    if not path.is_file():
        return None
    return "keypoints" if read_json(path).get("kind") == "keypoints" else "masks"


def is_empty(folder: Path) -> bool:
    """Whether a folder of labels holds none."""
    return not any(path.suffix in (".png", ".csv") and path.name[0] != "." for path in folder.glob("*"))


def cannot_write(path: Path, error: OSError) -> OutputError:
    """The error for a file of ours that cannot be written."""
    return OutputError(path, f"cannot be written ({error.strerror})", "check the folder, its rights and the free space")
