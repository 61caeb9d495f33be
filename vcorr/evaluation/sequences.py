"""Labels the videos of a benchmark in parallel processes, into the folder that its evaluation reads."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vcorr.evaluation import davis_layout, pool
from vcorr.evaluation.task import PointTask, Task
from vcorr.files import agree, held, make_folder, recorded, replacing, sha256, sweep, write_json
from vcorr.labels.draw import default_palette
from vcorr.labels.keypoint_set import TABLE, KeypointTable
from vcorr.labels.keypoints import KeypointLabels, Points
from vcorr.labels.label import MaskLabels
from vcorr.labels.masks import is_whole, write_mask
from vcorr.labels.raw_ids import Ids
from vcorr.media.image import shrink
from vcorr.media.video import Video, open_video
from vcorr.model.encoder import Encode, Encoder, Model, Picture
from vcorr.model.weights import default_weights, load_weights
from vcorr.propagation.plan import Span
from vcorr.propagation.propagator import Propagator
from vcorr.propagation.span import Pictures, label_span
from vcorr.propagation.video import pictures

Load = Callable[[], Model]
"""Makes the model; called in each process, so it must be picklable."""

SIDE = 480  # pixels, the short side at which DAVIS is read
MADE_BY = "made_by.json"


def trained(weights: Path | None) -> tuple[Load, str]:
    """A function that loads a model from a weights file or the shipped weights, and the file's SHA-256."""
    load_weights(weights)  # reports an error here, before any worker starts
    digest = sha256(weights or default_weights())
    return partial(_trained, weights, "cpu"), f"weights {digest}"


def _trained(weights: Path | None, device: str) -> Model:
    return Model.of(load_weights(weights), device)


@dataclass(frozen=True)
class Labelled:
    """A labelled sequence.

    Attributes:
        name: of the sequence.
        frames: the number of labelled frames.
        seconds: the time it took; 0 if the results existed.
        damaged: frames that do not decode; they got the picture before them.
    """

    name: str
    frames: int
    seconds: float
    damaged: tuple[int, ...] = ()


def label_sequences(
    root: Path,
    out: Path,
    load: Load,
    about: str,
    *,
    names: list[str] | None = None,
    workers: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Generator[Labelled]:
    """Labels every sequence of a dataset in DAVIS's layout from its first annotated frame; yields each as it ends.

    Args:
        root: the dataset.
        out: folder of the results, OUT/<sequence>/00000.png.
        names: these sequences instead of the validation split.
        load, about, workers, say: see `label_videos`.

    Raises:
        InputError: a sequence lacks images or objects, or its files do not fit together; before any is labelled.
        OutputError: see `label_videos`.
    """
    yield from label_videos(davis_tasks(root, out, names=names), out, load, about, workers=workers, say=say)


def label_videos(
    tasks: Iterable[Task | PointTask],
    out: Path,
    load: Load,
    about: str,
    *,
    workers: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Generator[Labelled]:
    """Labels videos, the longest first; yields each as it ends.

    Args:
        tasks: the videos.
        out: folder of all results; a video with all its results is skipped.
        load: makes the model.
        about: what the results depend on, such as the SHA-256 of the weights; another folder's is refused.
        workers: processes of one thread each; None for one for each core that this process may use.
        say: receives lines for the user.

    Raises:
        OutputError: another process uses ``out``, it holds something else, or it cannot be written.
    """
    jobs = [(task, load) for task in sorted(tasks, key=lambda task: -task.length)]
    with held(out, say):
        _claim(out, about)
        with contextlib.closing(pool.outcomes(_label, jobs, workers, in_order=False)) as outcomes:
            yield from outcomes


def davis_tasks(root: Path, out: Path, *, names: Iterable[str] | None = None) -> list[Task]:
    """The sequences of a dataset in DAVIS's layout as tasks that write OUT/<sequence>/00000.png.

    Raises:
        InputError: a sequence lacks images or objects, or its files do not fit together.
    """
    return [_davis(sequence, out / sequence.name) for sequence in davis_layout.sequences(root, names=names)]


def _davis(sequence: davis_layout.Sequence, out: Path) -> Task:
    with open_video(sequence.images) as video:
        size = video.height, video.width
    davis_layout.first_ids(sequence, size)
    first = sequence.start
    wanted = {first + k: frame.stem for k, frame in enumerate(sequence.frames[first:])}
    return Task(sequence.name, sequence.images, out, size, wanted, partial(_davis_given, sequence, size, first))


def _davis_given(sequence: davis_layout.Sequence, size: tuple[int, int], first: int) -> dict[int, Ids]:
    return {first: davis_layout.first_ids(sequence, size)}


def _claim(out: Path, about: str) -> None:
    wanted, elsewhere = {"made by": about}, "give another folder"
    found = recorded(out, MADE_BY, holds="labelled sequences", advice=elsewhere)
    if found is not None:
        agree(out, found, wanted, what="holds the results of others", advice=elsewhere)
    write_json(out / MADE_BY, wanted)


def _label(job: tuple[Task | PointTask, Load]) -> Labelled:
    """In a process of the pool, or in the only one.

    Raises:
        CancelledError: the pool is closing.
    """
    task, load = job
    if isinstance(task, PointTask):
        return _label_points(task, load)
    files = task.files
    if all(is_whole(path, task.size) for path in files.values()):
        return Labelled(task.name, len(files), 0.0)
    make_folder(task.out)
    sweep(task.out)
    began = time.monotonic()
    with _one_thread(), open_video(task.images) as video:
        given = task.given()
        model, frames = load(), range(min(given), max(files) + 1)
        labels = MaskLabels.of(given.values(), task.size, model.encoder.device)
        masks = {k: labels.typed(ids) for k, ids in given.items()}
        for index, ids, sureness in _labelled(_pictures(video, task.read), frames, masks, model, labels):
            if pool.stopped():
                raise CancelledError
            if index in files:
                if task.classes is not None:
                    _write_list(files[index].with_suffix(".txt"), task.classes, sureness())
                write_mask(files[index], ids, default_palette())
        return Labelled(task.name, len(files), time.monotonic() - began, tuple(video.damaged))


def _label_points(task: PointTask, load: Load) -> Labelled:
    frames = range(task.frames)
    table = KeypointTable(task.out / TABLE, task.points, task.size)
    if table.path.is_file() and not table.missing(frames):
        return Labelled(task.name, len(frames), 0.0)
    make_folder(task.out)
    table.prepare()
    began = time.monotonic()
    with _one_thread(), open_video(task.images) as video:
        model = load()
        propagator = Propagator(model, KeypointLabels(task.points, task.size, model.encoder.device))
        given = {0: Points.given(task.given())}
        for index, _, points in label_span(_pictures(video, task.read), Span(frames), given, propagator):
            if pool.stopped():
                raise CancelledError
            table.write(index, points)
        table.finish(frames)
        return Labelled(task.name, len(frames), time.monotonic() - began, tuple(video.damaged))


def _labelled(
    read: Pictures, frames: range, given: Mapping[int, Ids], model: Model, labels: MaskLabels
) -> Iterator[tuple[int, Ids, Callable[[], dict[int, float]]]]:
    """Yields the labels of frames and their scores; objects may begin after the first frame.

    Objects that begin cover earlier labels (Oh et al. 2019). A propagator of their own reads them from there on, and
    reads no earlier frames, where they would count as background.
    """
    model = replace(model, encoder=_once(model.encoder))
    begun: list[tuple[Propagator[Ids], Ids]] = []
    for index, picture in read(frames):
        label: Ids | None = None
        for propagator, own in begun:
            found = propagator.step(picture)
            label = found if label is None else _over(label, found, np.isin(found, own))
        if index in given:
            added = given[index]
            label = added if label is None else _over(label, added, added > 0)
            propagator = Propagator(model, labels)
            propagator.step(picture, label)
            begun.append((propagator, labels.typed(np.setdiff1d(added, 0))))
        assert label is not None  # the first frame is given
        yield index, label, partial(_sureness, label, [propagator for propagator, _ in begun], picture)


def _sureness(label: Ids, propagators: Sequence[Propagator[Ids]], picture: Picture) -> dict[int, float]:
    """The mean soft value of each id over its pixels, from the last propagator, which has all objects."""
    propagator = propagators[-1]
    labels, grid = cast("MaskLabels", propagator.labels), propagator.grid(picture)
    assert propagator.values is not None
    sure = {}
    for channel, k in enumerate(labels.classes.tolist()):
        if (there := torch.from_numpy(label == k)).any():
            values = grid.upsample(propagator.values[..., channel : channel + 1])[0, 0].cpu()
            sure[k] = float(values[there].mean())
    return sure


def _write_list(path: Path, classes: Mapping[int, int], sure: Mapping[int, float]) -> None:
    """Writes class and score of each id, those of id k in line k; 0 and 0 for a missing id."""
    lines = [f"{classes.get(k, 0)} {sure.get(k, 0.0):.6f}\n" for k in range(1, max(classes, default=0) + 1)]
    with replacing(path) as file:
        file.write("".join(lines).encode())


def _over(label: Ids, other: Ids, there: NDArray[np.bool_]) -> Ids:
    """Covers a label with another one."""
    return cast("Ids", np.where(there, other, label))


def _once(encoder: Encoder) -> Encoder:
    """Shares an encoder among propagators, so that each picture is encoded once."""

    def remembering(encode: Encode) -> Encode:
        last: list[tuple[Picture, Tensor]] = []

        def again(picture: Picture) -> Tensor:
            if not last or last[0][0] is not picture:
                last[:] = [(picture, encode(picture))]
            return last[0][1]

        return again

    slow = None if encoder.slow is None else remembering(encoder.slow)
    return replace(encoder, query=remembering(encoder.query), slow=slow)


def _pictures(video: Video, size: tuple[int, int] | None) -> Pictures:
    """The frames of a video in ascending order, at the size at which they are read."""
    if size is None:
        return pictures(video, SIDE)

    def read(frames: range) -> Iterator[tuple[int, Picture]]:
        return ((k, shrink(rgb, size)) for k, rgb in video.frames(frames.start, frames.stop))

    return read


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Uses one thread: the number of threads changes the last bits of results, the number of workers must not."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
