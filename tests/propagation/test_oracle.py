"""The propagator against the equations, written out with loops in float64: small frames, each setting in turn.

The values of a frame at cell x are sum_r sum_y A(x, y) values_r(y) with A(x, y) = exp(s <q(x), k_r(y)>) / Z, where y
runs over the window of x in every reference r, and Z is the sum over all of them.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from vcorr.labels.label import MaskLabels
from vcorr.matching.settings import Matching
from vcorr.model.encoder import Encoder, Model
from vcorr.model.inference import Inference, References
from vcorr.propagation.propagator import Propagator

FRAMES, CELLS, FEATURES, STRIDE = 5, (5, 6), 7, 4
SIZE = (18, 23)  # pixels: the last cells are cut
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Reader:
    """All settings in one table."""

    radius: int | None = 2
    scale: float | None = 3.0
    border: str = "mask"
    alignment: str = "cell"
    long: tuple[int, ...] = (0,)
    short: tuple[int, ...] = (1,)
    feedback: str = "soft"
    top_k: int | None = None
    compactness: int = 0
    search: int = 0
    slow: bool = False
    least: float = 0.0
    shape: str = "square"
    first_whole: bool = False
    repeat: bool = False

    def model(self):
        """Trained with radius 2 and scale 3; what differs belongs to reading."""
        trained = Matching(2, 3.0, self.border, self.alignment)
        inference = Inference(
            References(self.long, self.short, self.first_whole, self.repeat),
            radius="same" if self.radius == trained.radius else self.radius,
            scale="same" if self.scale == trained.scale else self.scale,
            feedback=self.feedback,
            top_k=self.top_k,
            compactness=self.compactness,
            roi_search=self.search,
            slow=self.slow,
            least=self.least,
            shape=self.shape,
        )
        return Model(encoder(self), trained, inference)


def features(seed):
    """[frame y x c]; frames resemble the one before, so that logits have something to find."""
    draw = np.random.default_rng(seed).standard_normal((FRAMES, *CELLS, FEATURES))
    for t in range(1, FRAMES):
        draw[t] = 0.8 * np.roll(draw[t - 1], 1, axis=1) + 0.6 * draw[t]
    return draw / np.linalg.norm(draw, axis=-1, keepdims=True)


def mask(seed):
    """Ids 0, 3, 7 in blocks that keep to no cell."""
    ids = np.random.default_rng(seed).choice([0, 3, 7], (6, 6)).repeat(3, 0).repeat(5, 1)
    return ids[: SIZE[0], : SIZE[1]].astype(np.uint8)


QUERY, SLOW = features(0), features(1)
CLASSES = (0, 3, 7)


# --- the equations --------------------------------------------------------------------------------------------------


def down(ids, alignment):
    """Share of each class in each cell [y x v]."""
    shares = np.zeros((*CELLS, len(CLASSES)))
    for i, j in np.ndindex(*CELLS):
        if alignment in ("sampled", "corner"):
            taken = [(4 * i, 4 * j)]
        else:
            inner = range(4) if alignment == "cell" else (1, 2)
            taken = [(4 * i + a, 4 * j + b) for a in inner for b in inner]
        for y, x in taken:  # pixels beyond the edge repeat the last
            ids_here = ids[min(y, SIZE[0] - 1), min(x, SIZE[1] - 1)]
            shares[i, j, CLASSES.index(ids_here)] += 1 / len(taken)
    return shares


def up(values, alignment):
    """Values of pixels [y x v]: bilinear between cells, the outermost repeated."""
    result = np.zeros((*SIZE, values.shape[-1]))
    for p in np.ndindex(*SIZE):
        at = []
        for pixel, cells, size in zip(p, CELLS, SIZE, strict=True):
            if alignment == "corner":
                place = pixel / 4
            elif alignment == "sampled":
                place = (pixel + 0.5) * cells / size - 0.5
            else:
                place = (pixel + 0.5) / 4 - 0.5
            at.append(min(max(place, 0), cells - 1))
        low = [min(int(a), n - 1) for a, n in zip(at, CELLS, strict=True)]
        for dy, dx in itertools.product((0, 1), repeat=2):
            y, x = min(low[0] + dy, CELLS[0] - 1), min(low[1] + dx, CELLS[1] - 1)
            weight = (at[0] - low[0] if dy else 1 - at[0] + low[0]) * (at[1] - low[1] if dx else 1 - at[1] + low[1])
            result[p] += weight * values[y, x]
    return result


def bilinear(frame, y, x):
    """A map [y x c] at a fractional place: zero outside."""
    total = np.zeros(frame.shape[-1])
    for i, j in itertools.product((math.floor(y), math.floor(y) + 1), (math.floor(x), math.floor(x) + 1)):
        if 0 <= i < CELLS[0] and 0 <= j < CELLS[1]:
            total += (1 - abs(y - i)) * (1 - abs(x - j)) * frame[i, j]
    return total


def search(query, key, gap, reader, scale, at):
    """Where the window of a cell goes in a reference far away (MAST, section 3.4)."""
    d = min(4, abs(gap) // reader.search + 1)
    total, moved = 0.0, np.zeros(2)
    for dy, dx in itertools.product(range(-reader.radius, reader.radius + 1), repeat=2):
        y, x = at[0] + d * dy, at[1] + d * dx
        inside = 0 <= y < CELLS[0] and 0 <= x < CELLS[1]
        if inside or reader.border == "zeros":
            weight = math.exp(scale * query[at] @ key[y, x]) if inside else 1.0
            total, moved = total + weight, moved + weight * d * np.array([dy, dx])
    return moved / total


def taps(query, references, reader, at):
    """(logit, value, reference, place) of all that cell ``at`` reads."""
    scale = 1 / math.sqrt(FEATURES) if reader.scale is None else reader.scale
    found = []
    for r, (gap, key, values, whole) in enumerate(references):
        if reader.radius is None or whole:
            places = [(y, x) for y, x in np.ndindex(*CELLS)]
        else:
            near = range(-reader.radius, reader.radius + 1)
            moved = search(query, key, gap, reader, scale, at) if 0 < reader.search < abs(gap) else (0, 0)
            places = [
                (at[0] + moved[0] + dy, at[1] + moved[1] + dx)
                for dy, dx in itertools.product(near, near)
                if reader.shape == "square" or math.hypot(dy, dx) < reader.radius
            ]
        for y, x in places:
            if 0 <= y <= CELLS[0] - 1 and 0 <= x <= CELLS[1] - 1:
                found.append((scale * query[at] @ bilinear(key, y, x), bilinear(values, y, x), r, (y, x)))
            elif reader.border == "zeros":
                found.append((scale * query[at] @ bilinear(key, y, x), bilinear(values, y, x), r, None))
    return found


def compact(found, reader):
    """LIIR: in each reference where the largest weight is above 0.1, peaks of width 1 at the k best cells instead."""
    weights = np.exp([logit for logit, *_ in found])
    weights = weights / weights.sum()
    total = np.zeros(len(CLASSES))
    for r in {r for _, _, r, _ in found}:
        mine = [(w, value, place) for w, (_, value, s, place) in zip(weights, found, strict=True) if s == r]
        peaks = sorted(mine, key=lambda tap: -tap[0])[: reader.compactness]
        if peaks[0][0] > 0.1:
            shares = np.exp([w for w, *_ in peaks]) / np.exp([w for w, *_ in peaks]).sum()
            for share, (_, _, peak) in zip(shares, peaks, strict=True):
                for _, value, place in mine:
                    if peak is not None and place is not None:
                        total += share * 2.0 ** (-4 * ((place[0] - peak[0]) ** 2 + (place[1] - peak[1]) ** 2)) * value
        else:
            total += sum(w * value for w, value, _ in mine)
    return total


def read(query, references, reader):
    """Values [y x v] of a frame."""
    values = np.zeros((*CELLS, len(CLASSES)))
    for at in np.ndindex(*CELLS):
        found = taps(query, references, reader, at)
        if reader.compactness:
            values[at] = compact(found, reader)
            continue
        if reader.top_k:
            found = sorted(found, key=lambda tap: -tap[0])[: reader.top_k]
        weights = np.exp([logit for logit, *_ in found])
        values[at] = sum(w * value for w, (_, value, *_) in zip(weights / weights.sum(), found, strict=True))
    return values


def expected(reader, given):
    """Values and ids of frames 1, 2, ..."""
    keys = SLOW if reader.slow else QUERY
    memory = {0: down(given, reader.alignment)}
    for t in range(1, FRAMES):
        read_from = sorted({p for p in reader.long if p < t} | {t - b for b in reader.short if b < t} or {0})
        references = [(t - p, keys[p], memory[p], reader.first_whole and p in reader.long) for p in read_from]
        if reader.repeat:  # a video that begins with copies of its first frame
            read_from = [max(0, t - b) for b in reader.short]
            references = [(t - p, keys[p], memory[p], reader.first_whole) for p in reader.long if p < t]
            references += [(t - p, keys[p], memory[p], False) for p in read_from]
        values = read(QUERY[t], references, reader)
        ids = np.array(CLASSES)[up(values, reader.alignment).argmax(-1)]
        yield values, ids
        memory[t] = down(ids, reader.alignment) if reader.feedback == "hard" else values
        if reader.feedback == "soft" and reader.compactness:
            memory[t] = values / values.sum(-1, keepdims=True)
        if reader.feedback == "soft" and reader.least:
            objects = np.where(memory[t][..., 1:] < reader.least, 0, memory[t][..., 1:])
            memory[t] = np.concatenate([1 - objects.sum(-1, keepdims=True), objects], -1)


# --- against the propagator -----------------------------------------------------------------------------------------


def picture(t):
    return np.full((*SIZE, 3), t, np.uint8)


def encoder(reader):
    """Features by the number of the frame, which is what its picture shows."""

    def of(frames):
        return lambda shown: torch.from_numpy(frames[int(shown[0, 0, 0])])[None]

    return Encoder(of(QUERY), STRIDE, slow=of(SLOW) if reader.slow else None)


READERS = {
    "base": {},
    "radius": {"radius": 1},
    "radius-0": {"radius": 0},
    "whole": {"radius": None},
    "scale": {"scale": 0.5},
    "scale-default": {"scale": None},
    "zeros": {"border": "zeros"},
    "sampled": {"alignment": "sampled"},
    "bilinear": {"alignment": "bilinear"},
    "corner": {"alignment": "corner"},
    "hard": {"feedback": "hard"},
    "hard-corner": {"feedback": "hard", "alignment": "corner"},
    "top-1": {"top_k": 1},
    "top-4": {"top_k": 4},
    "top-4-zeros": {"top_k": 4, "border": "zeros", "radius": 1},
    "top-4-whole": {"top_k": 4, "radius": None},
    "first-only": {"long": (0,), "short": ()},
    "last-only": {"long": (), "short": (1,)},
    "many": {"long": (0, 1), "short": (1, 2)},
    "two-back": {"long": (), "short": (2,)},
    "compact": {"compactness": 2},
    "compact-hard-zeros": {"compactness": 1, "feedback": "hard", "border": "zeros"},
    "slow": {"slow": True},
    "least": {"least": 0.3},
    "least-compact": {"least": 0.3, "compactness": 2},
    "search": {"search": 1, "radius": 1},
    "search-zeros": {"search": 1, "radius": 1, "border": "zeros"},
    "disk": {"shape": "disk"},
    "disk-1-zeros": {"shape": "disk", "radius": 1, "border": "zeros"},
    "first-whole": {"first_whole": True, "radius": 1},
    "repeat": {"repeat": True, "long": (), "short": (1, 2, 3)},
    "walk": {"first_whole": True, "repeat": True, "short": (1, 2, 3), "shape": "disk", "top_k": 3},
    "walk-hard": {"first_whole": True, "short": (1, 2), "shape": "disk", "top_k": 100, "feedback": "hard"},
}


@pytest.mark.parametrize("name", READERS)
def test_values_and_masks_are_those_of_the_equations(name):
    reader = Reader(**READERS[name])
    labels = MaskLabels(np.array(CLASSES, np.uint8), SIZE, CPU)
    task = Propagator(reader.model(), labels)
    task.step(picture(0), mask(4))
    for t, (values, ids) in enumerate(expected(reader, mask(4)), start=1):
        got = task.step(picture(t))
        np.testing.assert_allclose(task.values[0].numpy(), values, rtol=0, atol=1e-5)
        best = np.sort(up(values, reader.alignment), -1)
        clear = best[..., -1] - best[..., -2] > 1e-5
        assert clear.mean() > 0.9
        np.testing.assert_array_equal(got[clear], ids[clear])
