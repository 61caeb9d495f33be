"""Refuses masks with soft edges, photographs and dithered pictures: each of their shades would become an object.

A value is an *area* if one of its pixels has eight equal neighbours. Otherwise, or if it is nowhere wider than a band
of a few pixels, a value is a *stray* if its pixels are

- blends of the areas nearby,
- on a *ramp*: a straight run of pixels that changes steadily from the background to another shade, or
- *crumbs*: single pixels where two other values meet.

The number of strays that a file may have depends on its kind. A colour between two areas is an edge. A grey level
between two others, or an id, may be an object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from vcorr.errors import InputError
from vcorr.labels.mask_files import WHITE, Integers, MaskFile, channels, shown

_HARD_EDGES = "paint without anti-aliasing, resize by nearest neighbour, or save as indexed PNG with the ids as indices"
_MANY = 64  # values: a file with more, most pixels of which differ from the next, is a photograph
_REACH = 6  # pixels: the width of a soft edge on either side
_BAND = 2  # equal pixels on each side of one: a value that has them is wider than an edge
_NOISE = 12  # levels, in each channel
_BLEND = 6  # levels by which a blend may differ from the straight line between two colours
_NEAREST = 40  # the same where a program took the nearest colour of a palette
_CONTRAST = 32  # levels between the ends of a blend; closer values are consecutive ids
_CRUMBS = 8  # pixels
_SPECKLED = 0.1  # share of the objects' pixels: more single pixels than this are a dithering pattern

Shades = NDArray[np.float64]
Flags = NDArray[np.bool_]


def refuse_soft_edges(files: Iterable[MaskFile]) -> None:
    """Refuses photographs, dithered pictures and soft edges.

    An id that is wide in one of the files may be narrow in another.

    Raises:
        InputError: names the file, the number of strays, and the place of one.
    """
    files = list(files)
    wide = [file.values[_inner(file, _BAND)] if file.kind == "ids" else np.empty(0, np.int64) for file in files]
    known = np.unique(np.concatenate(wide)) if wide else np.empty(0, np.int64)
    for file in files:
        if len(file.values) > 2:
            _refuse_photographs(file)
            _refuse_strays(file, known)
        _refuse_dither(file)


def _refuse_photographs(file: MaskFile) -> None:
    if len(file.values) > _MANY and np.mean(file.codes[:, 1:] == file.codes[:, :-1]) < 0.5:
        what = f"has {len(file.values)} {_noun(file)}, hardly two neighbours alike: a picture, not a mask"
        raise InputError(file.path, what, "give the mask that was painted over it")


def _refuse_strays(file: MaskFile, known: Integers) -> None:
    shades = _shades(file)
    area = _inner(file, 1) | (file.values == 0)
    wide = _inner(file, _BAND) | (file.values == 0)
    if file.kind == "ids":
        wide |= np.isin(file.values, known)
    counts = np.bincount(file.codes.ravel(), minlength=len(file.values))
    narrow = [int(code) for code in np.argsort(-counts, kind="stable") if not wide[code]]
    ramps = [code for code in narrow[:_MANY] if _is_ramp(file, code, shades)]
    ramps += [code for code in narrow[:_MANY] if code not in ramps and not area[code] and _is_crumbs(file, code)]
    thin = [code for code in narrow if not area[code] and file.kind != "ids"]
    strays = ramps + [c for c in thin[:_MANY] if c not in ramps and _is_blend(file, c, shades, area)]
    if len(strays) > _allowed(file, shades, area, ramps) or len(thin) > max(_MANY, int(area.sum())):
        found = strays or thin
        y, x = np.argwhere(file.codes == found[0])[0]
        value = int(file.values[found[0]])
        name = shown(value) if file.kind == "colour" else str(value)
        pixels = int(counts[np.union1d(strays, thin).astype(int)].sum())
        what = f"has soft edges: {len({*strays, *thin})} stray {_noun(file)} of {pixels} pixels in all"
        raise InputError(file.path, f"{what}, such as {name} at x={x} y={y}", _HARD_EDGES)


def _allowed(file: MaskFile, shades: Shades, area: Flags, ramps: list[int]) -> int:
    """The number of strays that a file may have, because they may be objects."""
    if file.kind == "colour":
        return 0  # one stray colour is the edge of a rectangle
    if file.palette is not None:
        return int(area.sum() > 2)
    middle = [code for code in ramps if _CONTRAST < shades[code, 0] < WHITE - _CONTRAST]
    if middle and (shades[area] == WHITE).any():  # white is painted, and what leads to it is its edge
        return 0
    return 2 if file.kind == "grey" else max(2, int(area.sum()))


def _refuse_dither(file: MaskFile) -> None:
    """Refuses dithering: a shade that the palette lacks becomes a pattern of single pixels, each unlike its neighbours.

    The pattern mixes two objects, or fills an object with holes. Single pixels that only touch the background may be
    thin, slanting objects.
    """
    codes = np.pad(file.codes.astype(np.int32), 1, constant_values=-1)
    middle = codes[1:-1, 1:-1]
    sides = [codes[:-2, 1:-1], codes[2:, 1:-1], codes[1:-1, :-2], codes[1:-1, 2:]]
    single = np.logical_and.reduce([side != middle for side in sides])
    places = np.argwhere(single)
    if len(places) <= _MANY // 4:
        return
    ground = np.append(np.flatnonzero(file.values == 0), -1)
    rows, columns = places.T
    alone = np.logical_and.reduce([np.isin(side[rows, columns], ground) for side in sides])
    speckled = places[~(alone & ~np.isin(middle[rows, columns], ground))]
    objects = middle.size - file.count(np.array([0]))
    if len(speckled) > max(_MANY // 4, objects * _SPECKLED):
        y, x = speckled[0]
        what = f"is dithered: {len(speckled)} pixels are unlike all of their neighbours, such as that at x={x} y={y}"
        raise InputError(file.path, what, "save it without dithering, as RGB, or as grey of 8 bits")


def _noun(file: MaskFile) -> str:
    return {"colour": "colours", "grey": "grey values", "ids": "ids"}[file.kind]


def _shades(file: MaskFile) -> Shades:
    """[n c], the colour or grey of each value, levels 0 to 255."""
    if file.kind == "colour":
        return channels(file.values)
    if file.palette is not None:
        return channels(np.maximum(file.palette[np.minimum(file.values, WHITE)], 0))
    return file.values[:, None].astype(np.float64) * (WHITE / file.white)


def _inner(file: MaskFile, reach: int) -> Flags:
    """[n], whether a pixel of each value has only equal ones within ``reach``; the border repeats beyond the frame."""
    codes = file.codes
    height, width = codes.shape
    padded = np.pad(codes, reach, mode="edge")
    rows, inner = np.ones((height + 2 * reach, width), bool), np.ones(codes.shape, bool)
    for x in range(2 * reach + 1):
        rows &= padded[:, x : x + width] == padded[:, reach : reach + width]
    for y in range(2 * reach + 1):
        inner &= rows[y : y + height] & (padded[y : y + height, reach : reach + width] == codes)
    return np.bincount(codes[inner], minlength=len(file.values)) > 0


def _mostly(file: MaskFile, code: int, holds: Callable[[int, int], bool]) -> bool:
    """Whether a predicate holds at most of the places (y, x) of a value, of which 16 are tried."""
    places = np.argwhere(file.codes == code)
    places = places[:: max(1, len(places) // 16)].tolist()
    held, left = 0, len(places)
    while 2 * (held + left) > len(places):  # most may yet hold
        y, x = places[-left]
        held, left = held + holds(y, x), left - 1
        if 2 * held > len(places):
            return True
    return False


def _is_blend(file: MaskFile, code: int, shades: Shades, area: Flags) -> bool:
    """Whether most pixels of a value are between two nearby areas, in place and shade, or are a noisy area."""
    shade = shades[code]

    def holds(y: int, x: int) -> bool:
        near = np.unique(file.codes[max(0, y - _REACH) : y + _REACH + 1, max(0, x - _REACH) : x + _REACH + 1])
        ends = shades[near[area[near]]]
        return any(_on_line(shade, a, b, _BLEND) for i, a in enumerate(ends) for b in ends[:i]) or _is_noise(
            shade, ends
        )

    return _mostly(file, code, holds)


def _is_noise(shade: Shades, areas: Shades) -> bool:
    """Whether a colour nearly equals that of an area, as in lossy files. Small grey values are ids, however close."""
    if len(shade) == 1:
        areas = areas[areas[:, 0] == WHITE]
    return bool((np.abs(areas - shade).max(axis=1, initial=0) <= _NOISE).any())


def _on_line(shades: Shades, a: Shades, b: Shades, slack: float) -> bool:
    """Whether shades [c] or [n c] are blends of two that differ enough."""
    if np.abs(a - b).max() < max(_CONTRAST, 2 * slack):
        return False
    along = np.clip((shades - a) @ (b - a) / ((b - a) @ (b - a)), 0, 1)
    return bool(np.abs(a + along[..., None] * (b - a) - shades).max() <= slack)


def _is_crumbs(file: MaskFile, code: int) -> bool:
    """Whether a value has many pixels, single or in pairs, where two others meet: edges of few shades."""
    if np.count_nonzero(file.codes == code) < _CRUMBS:
        return False

    def holds(y: int, x: int) -> bool:
        window = file.codes[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
        return int(np.count_nonzero(window == code)) <= 2 and len(np.unique(window)) > 2

    return _mostly(file, code, holds)


def _is_ramp(file: MaskFile, code: int, shades: Shades) -> bool:
    """Whether most pixels of a value lie on ramps. A small object is a peak between its neighbours instead."""
    height, width = file.codes.shape
    slack = _BLEND if file.palette is None else _NEAREST

    def holds(y: int, x: int) -> bool:
        for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
            for reach in range(1, _REACH + 1):
                rows = np.clip(y + dy * np.arange(-reach, reach + 1), 0, height - 1)
                columns = np.clip(x + dx * np.arange(-reach, reach + 1), 0, width - 1)
                codes = file.codes[rows, columns]
                run = shades[codes]
                a, b, middle = run[0], run[-1], run[reach]
                if 0 not in file.values[codes[[0, -1]]]:
                    continue
                if min(np.abs(middle - a).max(), np.abs(middle - b).max()) <= _NOISE:
                    continue
                if _on_line(run, a, b, slack) and (np.diff(run @ (b - a)) >= 0).all():
                    return True
        return False

    return _mostly(file, code, holds)
