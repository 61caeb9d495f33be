"""Matches the objects of all masks of a video: one set of ids, and one palette.

The labels are matched first, as a set, in order of their frames. Corrections follow one by one; they change no id. The
rules:

- The first mask states ids (indexed, 16 bits), or its colours are numbered: colours of vcorr's own palette get their
  ids there; others become 1, 2, ... in order of (red, green, blue). A grey mask of two values is object 1.
- The same colour is the same object, in RGB or in a palette. The palette of the results counts too: vcorr accepts its
  own results, indexed or as RGB.
- The same id is the same object, as an index, a 16-bit value or a grey level.
- White (255) alone means the only object that exists. Next to other ids it is void, which is background.
- A new object must come in a file with a known object, or in the same kind of file as an earlier mask.
- An ambiguous mask is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from vcorr.errors import InputError
from vcorr.labels.draw import default_palette
from vcorr.labels.mask_files import TWO_WAYS, WHITE, Integers, MaskFile, colour_codes, levels, merged, shown

MAX_ID = 65534  # 65535 is white in grey of 16 bits
_WHITE = 0xFFFFFF
_LISTED = 6  # objects, or colours, named in a line


@dataclass(frozen=True, eq=False)
class Matched:
    """The ids of one file.

    Attributes:
        file: the content that the ids belong to; of an indexed file that is read by its colours, those.
        ids: int64 [n], the id of each of the file's values.
        names: by id, how the file shows the object: "#ff0000", "value 255", "" for the id itself.
        background: how the file shows its background.
        notes: decisions that the user should know.
    """

    file: MaskFile
    ids: Integers
    names: dict[int, str]
    background: str
    notes: tuple[str, ...] = ()


def match(
    labels: Mapping[int, MaskFile], corrections: Mapping[int, MaskFile], kept: Mapping[int, MaskFile]
) -> tuple[dict[int, Matched], Integers]:
    """Matches files by frame. Returns the ids of each file, and the palette of all: a distinct colour for ids 0 to 255.

    ``kept`` are results of earlier labels, whose ids are final.

    Raises:
        InputError: a file is ambiguous, or nothing in it says which objects it shows.
    """
    space = _Space(labels.values())
    matched = {k: space.take(file) for k, file in sorted(labels.items())}
    matched |= {k: space.keep(file) for k, file in sorted(kept.items())}
    matched |= {k: space.take(file) for k, file in sorted(corrections.items())}
    return matched, space.table


class _Space:
    """The objects of the files read so far.

    Attributes:
        table: int64 [256], the colour of each id in the results; distinct, 0 is black.
        known: ids of the objects so far.
        coming: ids that any of the labels states.
        colours: colour -> id of the objects so far, for given and written colours.
        painted: id -> colour in colour files.
        greys: grey level -> id, where they differ.
        single: grey levels, except white, that occur alone in one of the labels.
        by_value: whether the grey levels of the labels are ids. by_colour: whether one of the labels has colours.
        spoken: "ids", "colours" or both, as the files so far have stated them.
    """

    def __init__(self, labels: Iterable[MaskFile]) -> None:
        self.table = colour_codes(default_palette())
        self.known: set[int] = set()
        self.colours: dict[int, int] = {}
        self.painted: dict[int, int] = {}
        self.greys: dict[int, int] = {}
        self.spoken: set[str] = set()
        self._hear(labels)

    def _hear(self, labels: Iterable[MaskFile]) -> None:
        """Collects what only the labels as a set can tell."""
        files = list(labels)
        self.by_colour = any(file.kind == "colour" and not file.is_grey for file in files)
        greys = [file for file in files if file.is_grey]
        stated = [file for file in files if file.kind == "ids"]
        if not self.by_colour:
            stated += [file.as_grey() for file in greys if len(file.values) > 2]
        self.coming = {int(v) for file in stated for v in file.objects if v != file.white}
        self.single = {int(file.values[-1]) & WHITE for file in greys if len(file.values) <= 2} - {0, WHITE}
        self.by_value = len(self.single - {1}) > 1 or bool(self.coming - {1})
        if self.by_value:
            self.coming |= self.single

    def take(self, file: MaskFile) -> Matched:
        if file.kind == "colour" and file.is_grey and not self._speaks_colours(file):
            file = file.as_grey()
        if file.kind == "colour":
            return self._by_colours(file)
        if file.kind == "ids":
            return self._by_palette(file) if file.palette is not None else self._by_values(file)
        return self._by_levels(file)

    def keep(self, file: MaskFile) -> Matched:
        """Takes a result with its own ids. Raises an InputError if the present labels give its colours other ids."""
        shows = {int(i): -1 if file.palette is None else int(file.palette[i]) for i in file.objects}
        for i, colour in shows.items():
            if (other := self.colours.get(colour, i)) != i:
                what = f"shows object {i} in {shown(colour)}, which is object {other} of the labels that are given now"
                raise InputError(file.path, what, "give the labels that it was made from, and changes by --at K=FILE")
            self._know(i, colour)
        self.spoken.add("ids")
        return self._matched(file, {i: i for i in shows}, dict.fromkeys(shows, ""))

    def _speaks_colours(self, file: MaskFile) -> bool:
        """Whether the greys of a colour file are colours of objects, and not levels."""
        if any(int(c) in self.colours for c in file.objects):
            return True
        return len(file.values) > 2 and (self.by_colour or "colours" in self.spoken)

    # Grey levels

    def _by_levels(self, file: MaskFile) -> Matched:
        near = self.known | self.coming
        if len(file.values) > 2 or (len(file.values) == 2 and int(file.values[0]) in near):
            return self._by_values(file)
        level, dark = int(file.values[-1]), int(file.values[0])
        if level == 0:
            return self._matched(file, {}, {})
        id_, notes = self._single(file, level)
        if len(file.values) == 2 and (dark, level) not in ((0, id_), (0, WHITE)) and not notes:
            notes = (
                f"of the grey values {dark} and {level}, {level} is taken as object {id_}, the rest as background",
            )
        if level != id_:
            self.greys[level] = id_
        if self.by_value:
            self.spoken.add("ids")
        self._know(id_)
        self.colours.setdefault(int(levels(np.array(level))), id_)
        background = file.background if dark == 0 else f"value {dark}"
        return self._matched(file, {level: id_}, {id_: _named("value", file.written(level), id_)}, background, notes)

    def _single(self, file: MaskFile, level: int) -> tuple[int, tuple[str, ...]]:
        """The id of the only object of a grey file, and notes."""
        if level in self.greys:
            return self.greys[level], ()
        if level != WHITE and level in self.known | self.coming:
            return level, ()
        if not self.known and (level == WHITE or not self.by_value):
            if level != WHITE and 1 in self.single - {level}:
                what = f"is painted in grey {level}, another mask in grey 1: the same object, or two"
                raise InputError(file.path, what, "paint one object in one grey, or save ids as indexed PNG")
            if level != WHITE or 1 in self.coming or not self.coming:
                return 1, ()
        elif level == WHITE and len(self.known) == 1:
            return min(self.known), ()
        if level == WHITE:
            objects = _listed(sorted(self.known | self.coming))
            what = f"is painted in {file.full}, which beside the ids of the other masks ({objects}) means unlabelled"
            raise InputError(file.path, what, "paint in the value of the object's id, or in its colour as RGB")
        if grey_copy := self._grey_copy([level]):
            return grey_copy[level], (f"value {level} is the grey of object {grey_copy[level]}'s colour",)
        if self.by_value or ("ids" in self.spoken and len(self.known) > 1):
            return level, ()
        what = f"is painted in grey {level}, which none of the other masks has: they know {self._objects()}"
        advice = (
            f"paint known objects in their ids or colours, or save a new one as indexed PNG, id {level}, beside them"
        )
        raise InputError(file.path, what, advice)

    def _grey_copy(self, values: Iterable[int]) -> dict[int, int]:
        """Levels -> ids, if the file is a result that was converted to grey; else empty."""
        grey: dict[int, int] = {}
        for id_ in sorted(self.known):
            if id_ < WHITE:
                colour = int(self.table[id_])
                red, green, blue = colour >> 16, colour >> 8 & 255, colour & 255
                grey.setdefault(round((299 * red + 587 * green + 114 * blue) / 1000), id_)
        values = list(values)
        return {v: grey[v] for v in values} if all(v in grey for v in values) else {}

    # Ids

    def _by_values(self, file: MaskFile) -> Matched:
        """Reads values as ids: 16 bits, several grey levels, or indices without colours."""
        void, notes = self._void(file)
        if void is None:
            return self._white_alone(file)
        renamed = self.greys if file.kind == "grey" else {}
        ids = {int(v): renamed.get(int(v), int(v)) for v in file.objects if v != void}
        if len(set(ids.values())) < len(ids):
            old, new = next((v, id_) for v, id_ in ids.items() if v != id_)
            what = f"has the values {old} and {new}, but {old} is object {new} in the masks before it"
            raise InputError(file.path, what, "save the ids of all masks as indexed PNG, or all masks as RGB")
        if ids and self.known and not self.known & set(ids.values()):
            if grey_copy := self._grey_copy(ids) if file.kind == "grey" else {}:
                ids, notes = grey_copy, (*notes, "its values are the grey of the objects' colours")
            elif not (self.coming & set(ids.values()) or "ids" in self.spoken):
                raise self._stranger(file, f"the values {_listed(sorted(ids))}")
        for id_ in ids.values():
            self._know(id_)
        self.spoken.add("ids")
        word = "value" if file.palette is None else "index"
        return self._matched(file, ids, {id_: _named(word, v, id_) for v, id_ in ids.items()}, notes=notes)

    def _void(self, file: MaskFile) -> tuple[int | None, tuple[str, ...]]:
        """The void value, and notes: -1 if there is none, None if white is the only object."""
        if file.white not in file.objects:
            return -1, ()
        if len(file.objects) == 1 and not self.known | self.coming:
            return None, ()
        pixels = file.count(np.array([file.white]))
        return file.white, (f"value {file.white} ({pixels} pixels) is void, taken as background",)

    def _white_alone(self, file: MaskFile) -> Matched:
        self._know(1)
        note = f"value {file.white} is the only one beside 0, taken as object 1"
        return self._matched(file, {file.white: 1}, {1: f"value {file.white}"}, notes=(note,))

    def _by_palette(self, file: MaskFile) -> Matched:
        """Reads indices as ids, unless the colours show that a program reordered the palette."""
        assert file.palette is not None
        void, notes = self._void(file)
        if void is None:
            return self._white_alone(file)
        colours = {int(i): int(file.palette[i]) for i in file.objects if i != void}
        if self._reordered(file, colours):
            return self._by_colours(_in_colours(file), "its palette is in another order: matched by its colours")
        if self.known and colours:
            foreign = [i for i, c in colours.items() if self.painted.get(i, c) != c and c not in self.colours]
            if foreign and not (len(colours) == 1 and self.known == set(foreign)):
                raise self._stranger(file, _listed([f"index {i} {shown(max(0, colours[i]))}" for i in foreign]))
            own = any(c == self.table[i] for i, c in colours.items())
            if not (self.known & colours.keys() or own or "ids" in self.spoken):
                raise self._stranger(file, f"the indices {_listed(sorted(colours))}")
        first = not self.known
        for i, colour in colours.items():
            self._know(i, colour)
        if first:
            self._take_palette(file.palette)
        self.spoken.add("ids")
        names = {i: shown(c) if c > 0 else "" for i, c in colours.items()}
        return self._matched(file, {i: i for i in colours}, names, notes=notes)

    def _take_palette(self, palette: Integers) -> None:
        """Gives unused ids the colours of the first palette."""
        taken = {int(self.table[i]) for i in self.known if i <= WHITE} | {0}
        for i in range(1, WHITE + 1):
            if i not in self.known and palette[i] > 0 and int(palette[i]) not in taken:
                taken.add(int(palette[i]))
                self._exchange(i, int(palette[i]))

    def _reordered(self, file: MaskFile, colours: dict[int, int]) -> bool:
        """Whether an indexed file has the colours of known objects at other indices.

        Raises:
            InputError: ids and colours name different objects.
        """
        assert file.palette is not None
        entries = {int(c) for c in file.palette if c > 0}
        reduced = entries == set(colours.values())  # programs that reorder a palette cut it to the used colours
        places = {int(c): i for i, c in enumerate(self.table) if i}
        if not self.known:
            return (
                reduced
                and len(colours) > 1
                and entries <= places.keys()
                and any(places[c] != i for i, c in colours.items())
            )
        weak = places if reduced else {}
        moved = [i for i, c in colours.items() if self.colours.get(c, weak.get(c, i)) != i]
        if not moved:
            return False
        met = [c in self.colours for c in colours.values()]
        if all(met) or (any(met) and "colours" in self.spoken):
            return True
        i = moved[0]
        other = self.colours.get(colours[i], weak.get(colours[i]))
        what = f"has {shown(colours[i])} at index {i}, but that is the colour of object {other}"
        raise InputError(file.path, f"{what}: ids and colours do not agree", _both_ways(self._objects()))

    # Colours

    def _by_colours(self, file: MaskFile, *notes: str) -> Matched:
        colours = [int(c) for c in file.objects]
        if file.objects.size == file.values.size > 1 and _WHITE in colours and _WHITE not in self.colours:
            what = "has no black and no transparent pixel, but white ones: an object or the background?"
            raise InputError(file.path, what, TWO_WAYS)
        places = {int(c): i for i, c in enumerate(self.table) if i}
        if self.known:
            if colours and "colours" not in self.spoken and not any(c in self.colours for c in colours):
                raise self._stranger(file, _listed([shown(c) for c in colours]))
            ids = {c: self.colours.get(c, places.get(c, 0)) for c in colours}
        elif all(c in places for c in colours):
            ids = {c: places[c] for c in colours}
            void = int(self.table[WHITE])
            if void in ids and len(ids) > 1:
                pixels = file.count(np.array([void]))
                notes = (*notes, f"{shown(void)} ({pixels} pixels) is void, taken as background")
                ids[void] = 0
                self.spoken.add("colours")
                return self._register(file, ids, notes)
        else:
            ids = dict.fromkeys(colours, 0)
        taken = self.known | set(ids.values())
        free = (i for i in range(1, MAX_ID + 1) if i not in taken)
        ids = {c: id_ or next(free) for c, id_ in ids.items()}
        self.spoken.add("colours")
        return self._register(file, ids, notes)

    def _register(self, file: MaskFile, ids: dict[int, int], notes: tuple[str, ...]) -> Matched:
        for colour, id_ in ids.items():
            if id_:
                self._know(id_, colour)
                self.painted.setdefault(id_, colour)
        if 0 not in file.values and file.kind == "colour":
            notes = (*notes, "no pixel is black: there is no background")
        return self._matched(file, ids, {id_: shown(c) for c, id_ in ids.items() if id_}, notes=notes)

    # Common to all kinds

    def _know(self, id_: int, colour: int = -1) -> None:
        """Adds an object, and the colour that a file gives it; 0 or less for none.

        Its colour in the results is then no other object's, given or written.
        """
        new = id_ not in self.known
        self.known.add(id_)
        if colour > 0:
            self.colours.setdefault(colour, id_)
        if not new or id_ > WHITE:
            return
        if self.colours.get(colour) == id_:
            self._exchange(id_, colour)
        elif int(self.table[id_]) in self.colours:
            others = (int(c) for i, c in enumerate(self.table) if i and i not in self.known)
            self._exchange(id_, next((c for c in others if c not in self.colours), int(self.table[id_])))
        if id_ < WHITE:
            self.colours.setdefault(int(self.table[id_]), id_)

    def _exchange(self, id_: int, colour: int) -> None:
        """Swaps colours in the results: an id gets a colour, and the id that had it gets the old one."""
        self.table[self.table == colour] = self.table[id_]
        self.table[id_] = colour

    def _objects(self) -> str:
        named = [f"{i} {shown(int(self.table[i]))}" if i < WHITE else str(i) for i in sorted(self.known)]
        return f"object{'s' * (len(named) != 1)} {_listed(named)}"

    def _stranger(self, file: MaskFile, shows: str) -> InputError:
        what = (
            f"shows {shows}, which none of the other masks has, so that they cannot be matched with {self._objects()}"
        )
        return InputError(file.path, what, _both_ways(self._objects()))

    def _matched(
        self,
        file: MaskFile,
        ids: Mapping[int, int],
        names: dict[int, str],
        background: str | None = None,
        notes: tuple[str, ...] = (),
    ) -> Matched:
        of_values = np.array([ids.get(int(v), 0) for v in file.values], np.int64)
        if (of_values > 0).all():
            background = "none"
        return Matched(file, of_values, names, background or file.background, notes)


def _in_colours(file: MaskFile) -> MaskFile:
    """Turns an indexed file into a colour file."""
    assert file.palette is not None
    shows = np.where(file.values == 0, 0, np.maximum(file.palette[file.values], 0))
    codes, values = merged(file.codes, shows)
    return replace(file, kind="colour", codes=codes, values=values, palette=None)


def _named(word: str, value: int, id_: int) -> str:
    return "" if value == id_ else f"{word} {value}"


def _listed(items: Iterable[object]) -> str:
    names = [str(item) for item in items]
    return ", ".join(names[:_LISTED]) + (", ..." if len(names) > _LISTED else "")


def _both_ways(objects: str) -> str:
    return f"save it as RGB in the colours of the results ({objects}), or as indexed PNG with their palette and ids"
