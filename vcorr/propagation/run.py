"""The output folder of ``vcorr propagate``: what it holds, whose it is, and how a stopped run goes on.

masks/00000.png   indexed PNG, one a frame, named by frame index; or keypoints.csv: frame, point, x, y, confidence
propagated/       with an adaptation: the masks that it learned from; and adapt.csv, its losses
cycle.csv         with --check cycle: how much of the given masks is left when labels are carried back
scores/           with --soft: a map for each object, a file a frame
labels/           what was painted in `vcorr ui`: a folder of labels like any other
overlay.mp4       the video with the labels drawn on it
frames.csv        index, pts, seconds of every labelled frame
confidence.csv    of masks: frame, object, confidence, and the signals that it is made of
review.html       where to look first
manifest.json     inputs and weights by SHA-256, options, versions, device, where the time went
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

import vcorr
from vcorr.errors import UsageError
from vcorr.files import agree, held, recorded, remove, sha256, write_json
from vcorr.labels.earlier import Earlier
from vcorr.labels.given import Given, Kind, read_given, told_given
from vcorr.labels.object_names import NAMES
from vcorr.machine import conditions, goes_on, in_own_modes, pick_device
from vcorr.media.video import Video, open_video
from vcorr.model.encoder import Model
from vcorr.model.weights import Weights, default_weights, load_weights
from vcorr.phrases import duration, frame_list, ranges
from vcorr.propagation.adapted import NETWORK, adapt_results, forget, has_curve
from vcorr.propagation.blend import Waiting
from vcorr.propagation.cycle import TABLE as CYCLE
from vcorr.propagation.methods import read_by
from vcorr.propagation.plan import Span, spans
from vcorr.propagation.propagator import Propagator
from vcorr.propagation.request import Request as Request
from vcorr.propagation.request import correcting
from vcorr.propagation.results import OVERLAY, REVIEW, Results
from vcorr.propagation.resume import FORMAT, STATE, WAITING, label_stretches, resume_point, stretches_of
from vcorr.propagation.timing import Seconds, trial
from vcorr.propagation.update import earlier_labels, stale_frames, told_update
from vcorr.propagation.video import check_side, frame_range, pictures

MANIFEST = "manifest.json"
PAINTED = "labels"  # the folder of what was painted in `vcorr ui`
SAME = ("vcorr", "inputs", "options")  # what must be equal in the manifest for a folder to be continued
ELSEWHERE = "give another --out, or remove it"
CORRECT = "say --update to correct it, or give another --out"


@dataclass(frozen=True)
class Summary:
    """What was done: frames labelled now and before, seconds taken now, whether there is an overlay, and the folder.

    Attributes:
        kind: of the labels. labels: the file or folder of the results. look: where to look first, and scene cuts.
    """

    out: Path
    kind: Kind
    labels: Path
    frames: int
    labelled_now: int
    seconds: float
    shares: dict[str, float]
    overlay: bool
    look: str

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"out": str(self.out), "labels": str(self.labels)}


@dataclass(frozen=True)
class Work:
    """A request with its inputs open and checked, and what its folder holds so far. Nothing is written yet.

    Attributes:
        request: with the device that ``auto`` stands for. weights: as they were loaded.
        video, given: the inputs. start, end: frames to label, start .. end-1. plan: in which order.
        results: the files of the folder. missing: frames without a label that fits those given.
        manifest: of this request. found: the one in the folder, of the same inputs; empty where there is none.
    """

    request: Request
    weights: Weights
    video: Video
    given: Given[Any]
    start: int
    end: int
    plan: Sequence[Span]
    results: Results
    missing: set[int]
    manifest: dict[str, Any]
    found: dict[str, Any]

    @property
    def complete(self) -> bool:
        """Whether the folder holds everything already."""
        left_over = any((self.results.out / name).exists() for name in (STATE, WAITING, NETWORK))
        results = self.results
        whole = not (self.missing or left_over) and results.has_overlay() and results.has_table()
        whole = whole and results.has_confidence() and results.has_review()
        whole = whole and not (results.checked and results.found_back() is None)
        if adapt := self.request.adapt:
            whole = whole and has_curve(results.out, adapt) and not results.unadapted()
        return bool(self.found.get("complete")) and whole


@in_own_modes
def propagate_to(
    request: Request,
    *,
    say: Callable[[str], None] = lambda line: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    wrote: Callable[[int, Any], None] = lambda index, label: None,
    drew: Callable[[int], None] = lambda index: None,
    within: Collection[int] | None = None,
    held_already: bool = False,
) -> Summary:
    """Label a video and write the output folder, or go on where a stopped run of the same inputs left it.

    An update labels anew what the labels that it changes decide, and nothing else; its own labels come from the folder.
    In a folder that is complete, what went missing or was damaged is made again, and nothing else. Where no overlay
    can be drawn, the labels stand all the same.

    Args:
        say: takes lines worth telling; progress: takes (steps done, steps in all); a frame between two labelled ones
            takes two.
        wrote: takes the index and the label of each frame that was written; drew: the index of each that was drawn.
        within: of the frames without a label, only these are labelled now, and those on the way to them. If others are
            left, the folder is not complete: the same request without it goes on.
        held_already: the caller keeps other processes out of the folder (``files.held``).

    Raises:
        InputError, UsageError: as ``propagation.propagate``; nothing is written then.
        OutputError: the folder holds something else, another process works in it, or it cannot be written.
    """
    with opened(request, say) as work:
        request, video, given, plan, results = work.request, work.video, work.given, work.plan, work.results
        start, end, found, missing, manifest = work.start, work.end, work.found, work.missing, work.manifest
        device, store = torch.device(request.device), results.store
        if work.complete and found.get("names", {}) == manifest.get("names", {}):
            say(f"{request.out} is complete already: same inputs, same options")
            look = results.told(given.shown, found.get("cuts", []))
            return Summary(
                request.out, given.kind, results.final.path, end - start, 0, 0.0, {}, overlay=True, look=look
            )
        model, frames = Model.of(work.weights, device), pictures(video, request.short_side)
        propagator: Propagator[Any] = Propagator(model, given.labels(device))
        # What cannot be computed fails here, before a folder is made.
        tried = trial(propagator, frames, given.by_frame) if missing else None
        blind = _tell_blind(video, given.by_frame, say)
        with nullcontext() if held_already else held(request.out, say):
            found = _found(request, manifest)
            waiting = Waiting(request.out / WAITING)
            if stale := _stale(found, manifest, results.frames):
                say(told_update(found, manifest, stale, results.frames))
                _revise(results, found, manifest, stale, given)
                (request.out / STATE).unlink(missing_ok=True)
                waiting.clear()
            missing = results.missing()
            if not (missing or stale):  # they are left as they were made
                manifest["machine"] = found.get("machine", manifest["machine"])
            elif len(missing) < end - start:
                manifest["machine"] = goes_on(manifest["machine"], found.get("machine"), say)
            write_json(request.out / MANIFEST, manifest | {"complete": False})
            results.prepare()
            for k in set(given.by_frame) & set(results.frames):  # so that an update finds them
                store.write(k, given.by_frame[k])
                results.final.write(k, given.by_frame[k])
            if found.get("complete") and missing and not stale:
                said = f"labels of {len(missing)} frames are missing or damaged, and are made again"
                say(f"{said}: {frame_list(missing)}")
            wanted = missing if within is None else missing & set(within)
            stretches = stretches_of(plan, resume_point(request.out, device), wanted, waiting)
            left = sum(s.left(plan) for s in stretches)
            labelled = sum(s.left(plan) for s in stretches if not plan[s.span].waits)
            total = sum(map(len, plan))
            if left and tried is not None:
                after = f", going on after {total - left} of {total} steps" if left < total else ""
                said = _what_comes(video, tried.seen, given)
                say(f"{end - start} {said}: about {duration(tried.seconds * left)} on {device}{after}")
            began, seconds = time.monotonic(), Seconds()
            frames, propagator = seconds.items("io", frames), seconds.propagator(propagator)
            before = total - left
            label_stretches(
                frames,
                given.by_frame,
                propagator,
                plan,
                stretches,
                results,
                lambda done: progress(before + done, total),
                wrote,
                wanted if within is not None else None,
            )
            taken = time.monotonic() - began
            if wanted != missing and results.missing():
                look = "not all frames are labelled yet"
                return Summary(
                    request.out, given.kind, results.final.path, end - start, len(wanted), taken, {}, False, look
                )
            store.finish(range(start, end))
            adapted = False
            if request.adapt:
                again = pictures(video, request.short_side)
                adapted = adapt_results(request.adapt, results, again, given.labels(device), model, say)
            drawn, cuts = (True, found.get("cuts"))
            if left or adapted or not results.has_overlay():
                drawn, cuts = results.draw(say, drew)
            cuts = results.cuts() if cuts is None else cuts
            if request.check and (left or adapted or results.found_back() is None):
                say("labelling back, to check the labels")
                results.check(pictures(video, request.short_side), propagator, progress)
            results.rate(cuts)
            results.review(given, cuts, partial(correcting, request, given.kind))
            if video.damaged:  # by now those too that were labelled before a stop: the overlay shows every frame
                which = (
                    "frames took the picture beside them" if len(video.damaged) > 1 else "frame took the one beside it"
                )
                say(f"{len(video.damaged)} damaged {which}: {frame_list(video.damaged)}")
                _tell_blind(video, given.by_frame.keys() - blind, say)
            shares = {k: round(v / taken, 3) for k, v in dataclasses.asdict(seconds).items()} if left else {}
            about = {"complete": True, "cuts": cuts, "seconds": round(taken, 2), "shares": shares}
            for name in (STATE, NETWORK):
                (request.out / name).unlink(missing_ok=True)
            waiting.clear()
            write_json(request.out / MANIFEST, manifest | about)
        look = results.told(given.shown, cuts)
    return Summary(request.out, given.kind, results.final.path, end - start, labelled, taken, shares, drawn, look)


def recorded_results(out: Path) -> dict[str, Any] | None:
    """The manifest of a folder; None where it holds nothing yet.

    Raises:
        OutputError: it holds something else, or cannot be read.
    """
    painted = [PAINTED] if (out / PAINTED / NAMES).is_file() else []
    return recorded(out, MANIFEST, holds="results of vcorr", advice=ELSEWHERE, harmless=painted)


def _found(request: Request, manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest of the request's results in its folder; empty where it holds nothing yet.

    Raises:
        OutputError: it holds something else, or cannot be read.
    """
    found = recorded_results(request.out)
    if found is None:
        return {}
    before, now = ({key: m.get(key) for key in SAME} for m in (found, manifest))
    other_labels = before | {"inputs": {**(found.get("inputs") or {}), "labels": manifest["inputs"]["labels"]}}
    advice = CORRECT if before != now == other_labels else ELSEWHERE
    said = other_labels if request.update else before
    agree(request.out, said, now, what="holds the results of another run", advice=advice)
    return found


@contextmanager
def opened(request: Request, say: Callable[[str], None] = lambda line: None) -> Iterator[Work]:
    """Open and check the inputs of a request and look into its folder. The video stays open inside.

    Args:
        say: takes notes on how the inputs are read.

    Raises:
        InputError, UsageError: as ``propagation.propagate``.
        OutputError: the folder holds something else.
    """
    device = pick_device(request.device)
    check_side(request.short_side)
    request = dataclasses.replace(request, device=str(device))
    weights_file = request.weights or default_weights()
    weights = read_by(load_weights(weights_file), request.method, request.read)
    if request.partial and not request.update:
        what = "leaves the rest of a frame as the folder has it"
        raise UsageError("--partial", what, "label the video first, then say --update --partial")
    if request.without and not request.update:
        raise UsageError("--without", "takes labels back from a folder of results", "say --update as well")
    with open_video(request.video, apart=[request.labels, *request.at.values()]) as video:
        start, end = frame_range(video, request.start, request.end)
        earlier, recorded_now = None, recorded_results(request.out)
        if request.update:
            earlier = earlier_labels(request.out, recorded_now, range(start, end), request.at, request.without)
            earlier = dataclasses.replace(earlier, partial=request.partial)
        given = read_given(video, request.labels, start, end, request.at, request.named_by, request.kind, earlier)
        if request.adapt and given.kind != "masks":
            raise UsageError(
                "--adapt", f"labels anew by masks, but {request.labels} holds {given.kind}", "leave it out"
            )
        if request.soft and given.kind != "masks":
            raise UsageError("--soft", f"is for masks, but {request.labels} holds {given.kind}", "leave it out")
        if request.check and given.kind != "masks":
            raise UsageError(f"--check {request.check}", f"is for masks, not for {given.kind}", "leave it out")
        plan = spans(list(given.by_frame), start, end)
        manifest = _manifest(request, video, given, weights_file, start, end)
        if earlier:
            manifest |= _of_update(manifest, recorded_now or {}, earlier)
        for note in [*video.notes, *told_given(video, given)]:
            say(note)
        if unused := sorted(given.by_frame.keys() - set(range(start, end))):
            say(f"labels of frames {frame_list(unused)} are not used: frames {start} to {end - 1} are labelled")
        how = {"adapted": bool(request.adapt), "soft": request.soft, "checked": bool(request.check)}
        results = Results.of(request.out, video, range(start, end), given, **how)
        found = _found(request, manifest)
        missing = results.missing() | _stale(found, manifest, results.frames)
        yield Work(request, weights, video, given, start, end, plan, results, missing, manifest, found)


def _stale(found: dict[str, Any], manifest: dict[str, Any], frames: range) -> set[int]:
    """Frames whose results are of other labels than there are now."""
    return stale_frames(found, manifest, frames) if found else set()


def _revise(
    results: Results,
    found: dict[str, Any],
    manifest: dict[str, Any],
    stale: set[int],
    given: Given[Any],
) -> None:
    """Take out the results of frames that are labelled anew, and put in the labels of those that are labelled.

    The manifest says beforehand which they are: a run that is killed here is made good by the next one.
    """
    before = found.get("stale", {}).get("objects", found["objects"])
    mark = {"complete": False, "stale": {"frames": ranges(stale), "objects": before}, "machine": found.get("machine")}
    write_json(results.out / MANIFEST, manifest | mark)
    remove(results.out / OVERLAY)
    remove(results.out / REVIEW)
    remove(results.out / CYCLE)
    if results.adapted:
        forget(results.out)
        results.final.revise(results.frames, {k: v for k, v in results.given.items() if k in results.frames}, before)
    results.store.revise(stale, {k: given.by_frame[k] for k in stale & given.by_frame.keys()}, before)
    if results.sure:
        results.sure.revise(stale, before)
    if results.scores:
        others = given.objects != before or results.adapted
        results.scores.revise(results.frames if others else stale)


def _of_update(manifest: dict[str, Any], found: dict[str, Any], earlier: Earlier) -> dict[str, Any]:
    """What a manifest says of an update beside what it says of any run."""
    paths = manifest["paths"]
    at = {k: path for k, path in found.get("paths", {}).get("at", {}).items() if int(k) in earlier.digests}
    return {"paths": paths | {"at": at | paths["at"]}, "taken_back": sorted(earlier.without)}


def _manifest(request: Request, video: Video, given: Given[Any], weights: Path, start: int, end: int) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "vcorr": vcorr.__version__,
        "inputs": {
            "video": video.fingerprint(),
            "kind": given.kind,
            "labels": {str(k): given.digest(k) for k in given.by_frame},
            "weights": sha256(weights),
        },
        "options": {
            "start": start,
            "end": end,
            "size": request.short_side,
            "device": request.device,
            **({"adapt": dataclasses.asdict(request.adapt)} if request.adapt else {}),
            **({"soft": True} if request.soft else {}),
            **({"check": request.check} if request.check else {}),
            **({"method": request.method} if request.method else {}),
            **({"read": list(request.read)} if request.read else {}),
        },
        "paths": {
            "video": str(request.video),
            "labels": str(request.labels),
            "at": {str(k): str(path) for k, path in request.at.items()},
            "weights": request.weights and str(request.weights),
        },
        "video": {"frames": len(video), "height": video.height, "width": video.width, "fps": round(video.fps, 4)},
        **given.described,
        "machine": conditions(torch.device(request.device)),
    }


def _what_comes(video: Video, seen: tuple[int, int], given: Given[Any]) -> str:
    count, unit = len(given.objects), "object" if given.kind == "masks" else "point"
    size = f"frames of {video.width}x{video.height}, read at {seen[1]}x{seen[0]}"
    return f"{size}, {count} {unit}{'s' * (count != 1)}"


def _tell_blind(video: Video, labelled: Collection[int], say: Callable[[str], None]) -> set[int]:
    """Labels whose picture is another frame's: of the first labelled frame that is known before the work begins."""
    if blind := sorted(set(labelled) & set(video.damaged)):
        advice = "their labels go with the picture beside them, better label another"
        say(f"labelled and damaged: {frame_list(blind)}; {advice}")
    return set(blind)
