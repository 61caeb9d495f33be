"""What all pages of a server share: the video, the labels, the job that runs, and who listens."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from vcorr.errors import UsageError
from vcorr.labels.formats.points import Place
from vcorr.labels.given import Kind
from vcorr.media.video import Video
from vcorr.model.encoder import Model
from vcorr.model.weights import load_weights
from vcorr.phrases import ranges
from vcorr.propagation.export import OF_KEYPOINTS, OF_MASKS, check_form, export
from vcorr.propagation.review import stretches
from vcorr.propagation.run import PAINTED, Request, propagate_to, recorded_results
from vcorr.propagation.update import stale_frames
from vcorr.ui.frames import Frames
from vcorr.ui.job import Job, Worker
from vcorr.ui.label_folder import LabelFolder
from vcorr.ui.magic import Magic
from vcorr.ui.painted import KEEP, Painted, Patch
from vcorr.ui.placed import Placed, Sure

Tell = Callable[[str, Mapping[str, Any]], None]
"""(event, data): to every page."""
UNKNOWN = -1  # confidence of a frame that has none


@dataclass
class Session:
    """The state of a server.

    Args:
        request: of ``propagate``: the video, the folder and the options; labels are those in the folder.
        video: open. tell: takes what changed.
    """

    request: Request
    video: Video
    tell: Tell = lambda event, data: None

    def __post_init__(self) -> None:
        end = len(self.video) if self.request.end is None else self.request.end
        self.frames = range(self.request.start, end)
        self.size = (self.video.height, self.video.width)
        self.out = self.request.out
        self.pictures = Frames(self.video)
        self.labels = self._folder(self.request.kind or "masks")
        self.first_version = time.time_ns() // 1_000_000  # of masks: another one each time that the server starts
        self.versions: dict[int, int] = {}  # of those that changed since
        self._lock = threading.RLock()
        self._worker = Worker(lambda: self.tell("job", self.told()), self._ended)
        self._written: set[int] = set()
        weights, device = self.request.weights, self.request.device
        self._magic = Magic(lambda: Model.of(load_weights(weights), device))
        self.cuts: list[int] | None = None

    def open(self) -> None:
        """Read the folder, or make it.

        Raises:
            InputError, OutputError: it holds something else, is damaged, or cannot be written.
        """
        self.labels.open(self.manifest())
        self._look()

    def manifest(self) -> dict[str, Any] | None:
        """That of the results; None where there are none yet.

        Raises:
            OutputError: the folder holds something else.
        """
        return recorded_results(self.out)

    # --- what pages ask for -------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """All that a page shows beside pictures, masks and confidences."""
        with self._lock:
            manifest = self.manifest()
            stale = self._stale(manifest)
            return {
                "video": {
                    "name": self.video.path.name or str(self.video.path),
                    "frames": len(self.video),
                    "height": self.size[0],
                    "width": self.size[1],
                    "fps": self.video.fps,
                    "notes": list(self.video.notes),
                },
                "range": [self.frames.start, self.frames.stop],
                "out": str(self.out),
                "objects": self.labels.objects(),
                "labelled": sorted(self.labels.digests),
                "kind": self.labels.kind,
                "free": not (self.labels.digests or manifest),
                "computed": ranges(self._written),
                "stale": ranges(stale & self._written),
                "versions": self.versions,
                "first_version": self.first_version,
                "cuts": self.cuts if self.cuts is not None else (manifest or {}).get("cuts", []),
                "complete": bool(manifest and manifest.get("complete")) and not stale,
                "forms": list(OF_MASKS if self.labels.kind == "masks" else OF_KEYPOINTS),
                "job": self.told(),
            }

    @property
    def job(self) -> Job:
        """What runs, or ran last."""
        return self._worker.job

    def told(self) -> dict[str, Any]:
        """The job, as pages are told of it."""
        return vars(self.job).copy()

    def confidence(self) -> dict[str, Any]:
        """How sure each object is in each frame, in percent; ``UNKNOWN`` where it is not known."""
        manifest = self.manifest()
        with self._lock:
            cuts = self.cuts if self.cuts is not None else (manifest or {}).get("cuts", [])
            labelled = sorted(self.labels.digests)
        ids, sure = self.labels.confidence(manifest, cuts) if manifest else ([], np.empty((0, 0)))
        percent = np.where(np.isfinite(sure), np.rint(np.nan_to_num(sure) * 100), UNKNOWN).astype(int)
        known = np.nan_to_num(sure, nan=1.0)
        return {
            "first": self.frames.start,
            "values": {str(i): row for i, row in zip(ids, percent.T.tolist(), strict=True)},
            "look": [one.worst for one in stretches(known, self.frames.start, labelled, cuts)],
        }

    def mask(self, k: int) -> tuple[bytes | None, int]:
        """The PNG of a mask, and its version.

        Raises:
            UsageError: keypoints are labelled here.
        """
        with self._lock:
            return self.painted.png(k), self.version(k)

    def points(self, k: int) -> tuple[dict[int, Sure], int]:
        """The points of a frame by id, and their version.

        Raises:
            UsageError: masks are labelled here.
        """
        with self._lock:
            return self.placed.points(k), self.version(k)

    @property
    def painted(self) -> Painted:
        """The labels, where they are masks."""
        if isinstance(self.labels, Painted):
            return self.labels
        raise UsageError("masks", "keypoints are labelled here", "open the page again")

    @property
    def placed(self) -> Placed:
        """The labels, where they are keypoints."""
        if isinstance(self.labels, Placed):
            return self.labels
        raise UsageError("keypoints", "masks are labelled here", "open the page again")

    def version(self, k: int) -> int:
        """Of the mask of a frame."""
        return self.versions.get(k, self.first_version)

    # --- what pages do ------------------------------------------------------------------------------------------------

    def paint(self, k: int, patch: Patch, by: str) -> tuple[int, int]:
        """Put a stroke into a mask. It is on the disk when this returns.

        Args:
            by: the page that asks.

        Returns:
            The version of the mask before, and now.

        Raises:
            UsageError, OutputError: as ``Painted.paint``.
        """
        with self._lock:
            before = self.version(k)
            self.painted.paint(k, patch)
            for i in {int(i) for i in np.unique(patch.ids) if i and i != KEEP} - self.painted.names.keys():
                self.painted.describe(i, "")
            return before, self._changed(k, by)

    def place(self, k: int, places: Mapping[int, Place | None], by: str) -> tuple[int, int]:
        """Place points of a frame, or hide them. They are on the disk when this returns.

        Args:
            places: (x, y) by id of the point; None hides it. by: the page that asks.

        Returns:
            The version of the points before, and now.

        Raises:
            UsageError, OutputError: as ``Placed.place``.
        """
        with self._lock:
            before = self.version(k)
            self.placed.place(k, places)
            return before, self._changed(k, by)

    def magic(self, k: int, patch: Patch) -> bytes:
        """The mask of scribbles on a frame, as a PNG of its ids; nothing is kept.

        Args:
            patch: the scribbles in a rectangle, as ``magic`` has them.

        Raises:
            UsageError: as ``Magic.mask``. InputError: the frame cannot be decoded.
        """
        scribbles = np.zeros(self.size, np.uint16)
        height, width = patch.ids.shape
        scribbles[patch.y : patch.y + height, patch.x : patch.x + width] = patch.ids
        ids = self._magic.mask(k, lambda: self.pictures.rgb(k, self.request.short_side), scribbles)
        data = io.BytesIO()
        Image.fromarray(ids).save(data, "PNG", compress_level=1)
        return data.getvalue()

    def take_back(self, k: int, by: str) -> int:
        """Frame k is a labelled frame no more.

        Raises:
            OutputError: the folder cannot be written.
        """
        with self._lock:
            self.labels.take_back(k)
            return self._changed(k, by)

    def describe(self, id_: int, name: str | None, colour: str | None) -> None:
        """Name an object, or give it a colour."""
        with self._lock:
            for k in self.labels.describe(id_, name, colour):
                self._changed(k, "")
        self.tell("state", self.state())

    def choose(self, kind: Kind) -> None:
        """Label keypoints from now on, or masks.

        Raises:
            UsageError: labels of the other kind are there, or something runs.
            OutputError: the folder cannot be written.
        """
        with self._lock:
            if kind != self.labels.kind:
                if self.labels.digests or self.job.running or self.manifest():
                    what = f"the folder holds {self.labels.kind}"
                    raise UsageError(kind, what, "take its labels back, or give another --out")
                labels = self._folder(kind)
                labels.begin()
                self.labels = labels
        self.tell("state", self.state())

    def forget(self, id_: int) -> None:
        """Delete an object from the list and from all labels."""
        with self._lock:
            for k in self.labels.forget(id_):
                self._changed(k, "")
        self.tell("state", self.state())

    def propagate(self, within: Collection[int] | None = None) -> None:
        """Start to label frames; all of them, unless ``within`` says which.

        Raises:
            UsageError: something runs, or no frame is labelled.
        """
        if not self.labels.digests:
            raise UsageError("propagate", "no frame is labelled", "label one first")
        self._worker.start("propagate", lambda: self._propagate(within))

    def export(self, form: str) -> None:
        """Start to write the results in another form. They are completed first.

        Raises:
            UsageError: something runs, or there is no such form.
        """
        chosen = check_form(form, self.labels.kind)

        def work() -> None:
            self._propagate(None)
            self._worker.say(f"exporting: {form}")
            self.job.result = export(self.out, chosen).name
            self._worker.say(f"exported: {self.out / 'export' / self.job.result}")

        if not self.labels.digests:
            raise UsageError("export", "no frame is labelled", "label one first")
        self._worker.start("export", work)

    def stop(self) -> None:
        """Ask the job to stop. It does so after the frame that it is at."""
        self._worker.stop()

    def close(self) -> None:
        """Stop the job, and wait until it has saved."""
        self._worker.close()

    # --- within -------------------------------------------------------------------------------------------------------

    def _ended(self) -> None:
        with self._lock:
            if manifest := self.manifest():
                self.labels.agree(manifest)
                self.cuts = manifest.get("cuts", self.cuts)
            self._look()
            self.job.running = False
            state = self.state()
        self.tell("state", state)
        self.tell("confidence", {})

    def _propagate(self, within: Collection[int] | None) -> None:
        found, labels = self.manifest() or {}, self.labels
        if stale := self._stale(found or None) & self._written:
            labels.keep_before(stale)
        again = set(found.get("taken_back", [])) & labels.digests.keys()  # frames that are labelled once more
        request = replace(
            self.request,
            labels=labels.folder,
            at={k: labels.file(k) for k in again},
            named_by="index",
            kind=labels.kind,
            update=bool(found),
            without=labels.taken_back(found) if found else (),
        )
        began, before, first = 0.0, 0, True

        def wrote(index: int, label: Any) -> None:
            nonlocal first
            with self._lock:
                if first:  # by now the results that labels changed are gone
                    first = False
                    self._look()
                    self.tell("state", self.state())
                self._written.add(index)
                labels.wrote(index, label)
                if index not in labels.digests:
                    self._changed(index, "")
            self.job.frame = index

        def progress(done: int, total: int) -> None:
            nonlocal began, before
            if not began:
                began, before = time.monotonic(), done
            elif done > before:
                self.job.rate = round((done - before) / (time.monotonic() - began), 2)
            self.job.done, self.job.total = done, total
            self.tell("job", self.told())
            self._worker.check()

        summary = propagate_to(
            request,
            say=self._worker.say,
            progress=progress,
            wrote=wrote,
            within=within,
            held_already=True,
            drew=self._check_at,
        )
        self.job.said = summary.look

    def _check_at(self, index: int) -> None:
        self.job.frame = index
        self._worker.check()

    def _changed(self, k: int, by: str) -> int:
        """Frame k has another mask, by a page or by a job."""
        self.versions[k] = version = self.version(k) + 1
        labelled = k in self.labels.digests
        stale = ranges(self._stale(self.manifest()) & self._written) if by else None
        told: dict[str, Any] = {"frame": k, "version": version, "by": by, "labelled": labelled}
        self.tell("mask", told | ({"stale": stale, "objects": self.labels.objects()} if by else {}))
        return version

    def _stale(self, manifest: Mapping[str, Any] | None) -> set[int]:
        """Frames whose results are of other labels than there are."""
        if manifest is None:
            return set()
        labels = {str(k): label for k, label in self.labels.digests.items()}
        return stale_frames(manifest, {"inputs": {"labels": labels}}, self.frames) if labels else set()

    def _look(self) -> None:
        """See which frames have a result."""
        self._written = self.labels.results(self.manifest())

    def _folder(self, kind: Kind) -> LabelFolder:
        labels = Placed if kind == "keypoints" else Painted
        return labels(self.out / PAINTED, self.out, self.size, self.frames)
