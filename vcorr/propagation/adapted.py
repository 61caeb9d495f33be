"""Adaptation in an output folder: propagated masks lie in ``propagated``, those of the network in ``masks``.

It begins when all frames are propagated. A stopped one goes on from the state of its network, to the same bytes.
"""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vcorr.errors import InputError
from vcorr.files import remove, replacing
from vcorr.model.encoder import Model
from vcorr.model.nn import Tensors
from vcorr.model.weights import load_tensors, save_tensors
from vcorr.phrases import duration
from vcorr.propagation.adapt import OF_LOSS, Adaptation, Job, Network, fitted, relabelled
from vcorr.propagation.results import Results
from vcorr.propagation.span import Pictures

NETWORK = ".adapt.safetensors"
SCRATCH = ".adapt.samples"
CURVE = "adapt.csv"
FORMAT = "vcorr-adaptation-1"
SAVE_EVERY = 30.0  # seconds between two states to go on from
TELL_EVERY = 20  # iterations


def adapt_results(
    cfg: Adaptation, results: Results, pictures: Pictures, labels: Any, model: Model, say: Callable[[str], None]
) -> bool:
    """Make the masks that are missing by a network that is fitted to all of them.

    Args:
        labels: the kind of label (``Given.labels``).

    Returns:
        Whether there was anything to do.

    Raises:
        OutputError: a file cannot be written.
    """
    missing = results.unadapted()
    if not missing and has_curve(results.out, cfg):
        return False
    out, frames = results.out, results.frames
    given = {k: mask for k, mask in results.given.items() if k in frames}
    job = Job(frames, pictures, given, results.store.read, labels, model)
    told = _Told(out, cfg, say)
    network, view = fitted(job, cfg, out / SCRATCH, state=_state(out), reached=told)
    told.save(network)
    say(f"labelling {len(missing)} frames anew by the network")
    scored = results.scores.write if results.scores else lambda index, shares, grid: None
    for index, mask in relabelled(job, network, view, sorted(missing), scored):
        results.final.write(index, mask)
    _write_curve(out, network)
    return True


def has_curve(out: Path, cfg: Adaptation) -> bool:
    """Whether the table of losses is there, to its end."""
    try:
        lines = (out / CURVE).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return False
    return len(lines) == cfg.iterations + 1 and lines[-1].startswith(f"{cfg.iterations},")


def forget(out: Path) -> None:
    """Remove what a network left that was fitted to other masks.

    Raises:
        OutputError: it cannot be done.
    """
    for name in (NETWORK, SCRATCH, CURVE):
        remove(out / name)


class _Told:
    """Says how the fitting goes, and keeps the network."""

    def __init__(self, out: Path, cfg: Adaptation, say: Callable[[str], None]) -> None:
        self.path, self.cfg, self.say = out / NETWORK, cfg, say
        self.began = self.saved = time.monotonic()
        self.first: int | None = None

    def __call__(self, network: Network) -> None:
        done, total, now = network.iteration, self.cfg.iterations, time.monotonic()
        if self.first is None:
            self.first, self.began = done, now
        if done % TELL_EVERY == 0 or done in (self.first + 2, total):
            loss = np.mean([row[1] for row in network.losses[-TELL_EVERY:]])
            pace = (now - self.began) / max(1, done - self.first)
            left = f", {duration(pace * (total - done))} left" if self.first < done < total else ""
            self.say(f"fitting a network to the video: {done} of {total} iterations, loss {loss:.3f}{left}")
        if now - self.saved > SAVE_EVERY:
            self.save(network)

    def save(self, network: Network) -> None:
        save_tensors(self.path, network.state(), {"format": FORMAT})
        self.saved = time.monotonic()


def _state(out: Path) -> Tensors | None:
    """The network of a stopped run; None where there is none, or what there is was damaged."""
    try:
        tensors, meta = load_tensors(out / NETWORK)
    except InputError:
        return None
    return tensors if meta.get("format") == FORMAT else None


def _write_curve(out: Path, network: Network) -> None:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(OF_LOSS)
    table.writerows([row[0], *(f"{v:.5f}" for v in row[1:])] for row in network.losses)
    with replacing(out / CURVE) as file:
        file.write(text.getvalue().encode())
