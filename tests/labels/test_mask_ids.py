"""Several masks of one video have one space of ids; what was written is taken back; a correction changes no id."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from PIL import Image

from tests.examples import examples
from tests.labels.pictures import BLACK, BLUE, GREEN, PALETTE, RED, WHITE, colours, grid, indexed, save
from vcorr.errors import InputError
from vcorr.labels.masks import Mask, read_mask, read_masks, write_mask

MAROON, OFFICE_GREEN = tuple(PALETTE[1].tolist()), tuple(PALETTE[2].tolist())
deep = np.uint16


def ids_of(*masks: Mask) -> list[list[int]]:
    """The id of each square, mask by mask."""
    return [mask.ids[0, ::12].tolist() for mask in masks]


class TestTogether:
    """Masks given as a set."""

    def read(self, tmp_path: Path, *pictures: np.ndarray | Image.Image) -> list[list[int]]:
        files = {k: save(tmp_path / f"{k}.png", picture) for k, picture in enumerate(pictures)}
        return ids_of(*read_masks(files).values())

    def test_grey(self, tmp_path: Path) -> None:
        """Alone, 0 and 2 would be "one object, id 1"; beside a mask with 1 and 2 it is object 2."""
        assert self.read(tmp_path, grid(0, 1, 2), grid(0, 2, 2)) == [[0, 1, 2], [0, 2, 2]]
        assert self.read(tmp_path, grid(0, 2, 2), grid(0, 1, 2)) == [[0, 2, 2], [0, 1, 2]]
        assert self.read(tmp_path, grid(0, 255), grid(255, 0)) == [[0, 1], [1, 0]]
        assert self.read(tmp_path, grid(0, 7), grid(0, 200), grid(0, 300, dtype=deep)) == [[0, 7], [0, 200], [0, 300]]
        assert self.read(tmp_path, grid(0, 1, 2), grid(1, 2, 2)) == [[0, 1, 2], [1, 2, 2]]

    def test_colours_of_the_first_come_first(self, tmp_path: Path) -> None:
        assert self.read(tmp_path, colours(BLACK, RED), colours(BLUE, RED)) == [[0, 1], [2, 1]]
        assert self.read(tmp_path, colours(BLACK, WHITE), colours(BLUE, WHITE)) == [[0, 1], [2, 1]]
        grey = (128, 128, 128)
        assert self.read(tmp_path, colours(grey, WHITE, BLACK), colours(BLACK, RED, WHITE)) == [[1, 2, 0], [0, 3, 2]]

    def test_an_object_may_have_left(self, tmp_path: Path) -> None:
        assert self.read(tmp_path, grid(0, 1), grid(0, 0)) == [[0, 1], [0, 0]]
        assert self.read(tmp_path, colours(BLACK, BLACK), colours(BLACK, RED)) == [[0, 0], [0, 1]]

    def test_void_in_one_of_them(self, tmp_path: Path) -> None:
        assert self.read(tmp_path, indexed(grid(0, 1)), indexed(grid(0, 255))) == [[0, 1], [0, 0]]

    def test_white_is_the_one_object_that_there_is(self, tmp_path: Path) -> None:
        assert self.read(tmp_path, indexed(grid(0, 1)), grid(0, 255)) == [[0, 1], [0, 1]]
        assert self.read(tmp_path, grid(0, 255), indexed(grid(0, 1))) == [[0, 1], [0, 1]]
        with pytest.raises(InputError, match=r"1\.png: is painted in 255, .* other masks \(1, 2\) means unlabelled"):
            self.read(tmp_path, indexed(grid(0, 1, 2)), grid(0, 255))

    @pytest.mark.parametrize(
        ("pictures", "what"),
        [
            ((grid(0, 7), grid(0, 1)), "painted in grey 7, another mask in grey 1"),
            ((grid(0, 1), grid(0, 7)), "painted in grey 7, which none of the other masks has"),
            ((colours(BLACK, RED), grid(0, 7)), "painted in grey 7"),
            ((colours(BLACK, RED), indexed(grid(0, 1, 2))), r"shows index 1 #800000, which none .* matched with"),
            ((grid(0, 1), colours(BLACK, BLUE)), r"shows #0000ff, which none of the other masks has"),
            (
                (grid(0, 255), grid(0, 300, dtype=deep)),
                r"0\.png: is painted in 255, which beside the ids of the other masks \(300\)",
            ),
        ],
    )
    def test_what_cannot_be_matched_is_refused_with_both_ways_out(
        self, tmp_path: Path, pictures: tuple[np.ndarray, np.ndarray], what: str
    ) -> None:
        with pytest.raises(InputError, match=what) as refused:
            self.read(tmp_path, *pictures)
        assert "indexed PNG" in str(refused.value) or "RGB" in str(refused.value)


class TestCorrections:
    """Masks given after the labels."""

    def read(self, tmp_path: Path, first: np.ndarray | Image.Image, *more: np.ndarray | Image.Image) -> list[list[int]]:
        """Whatever is corrected, the first keeps the ids that it has alone."""
        path = save(tmp_path / "first.png", first)
        corrections = {k: save(tmp_path / f"{k}.png", picture) for k, picture in enumerate(more, start=5)}
        masks = read_masks({0: path}, corrections)
        np.testing.assert_array_equal(masks[0].ids, read_mask(path).ids)
        return ids_of(*masks.values())

    def test_another_colour(self, tmp_path: Path) -> None:
        assert self.read(tmp_path, colours(BLACK, RED), colours(BLACK, RED, BLUE)) == [[0, 1], [0, 1, 2]]
        assert self.read(tmp_path, colours(BLACK, MAROON), colours(RED, MAROON)) == [[0, 1], [2, 1]]
        assert self.read(tmp_path, colours(BLACK, RED), colours(BLACK, BLUE)) == [[0, 1], [0, 2]]

    def test_another_value(self, tmp_path: Path) -> None:
        assert self.read(tmp_path, grid(0, 7), grid(0, 7, 9)) == [[0, 1], [0, 1, 9]]
        assert self.read(tmp_path, grid(0, 255), grid(0, 1, 2)) == [[0, 1], [0, 1, 2]]
        assert self.read(tmp_path, grid(0, 255), indexed(grid(0, 1, 2))) == [[0, 1], [0, 1, 2]]
        with pytest.raises(InputError, match="has the values 7 and 1, but 7 is object 1 in the masks before it"):
            self.read(tmp_path, grid(0, 7), grid(0, 1, 7))

    def test_a_correction_may_come_before_the_first(self, tmp_path: Path) -> None:
        masks = read_masks(
            {5: save(tmp_path / "5.png", colours(BLACK, RED))}, {2: save(tmp_path / "2.png", colours(BLUE, RED))}
        )
        assert list(masks) == [2, 5] and ids_of(masks[2], masks[5]) == [[2, 1], [0, 1]]

    def test_an_indexed_file_matches_colours_by_its_palette(self, tmp_path: Path) -> None:
        red_and_blue = colours(BLACK, RED, BLUE)
        for order in ((BLACK, RED, BLUE), (BLACK, BLUE, RED), (RED, BLACK, BLUE), (BLUE, RED, BLACK)):
            codes = np.array([order.index(c) for c in (BLACK, RED, BLUE)], np.uint8)
            picture = indexed(codes[grid(0, 1, 2)], np.array(order, np.uint8))
            assert self.read(tmp_path, red_and_blue, picture) == [[0, 2, 1], [0, 2, 1]]

    def test_a_grey_copy_of_a_result(self, tmp_path: Path) -> None:
        result = indexed(grid(0, 1, 2, 5))
        assert self.read(tmp_path, result, result.convert("L")) == [[0, 1, 2, 5]] * 2

    def test_ids_and_colours_that_do_not_agree(self, tmp_path: Path) -> None:
        other = np.array([BLACK, GREEN, BLUE, RED], np.uint8)
        with pytest.raises(InputError, match=r"has #ff0000 at index 3, but that is the colour of object 1"):
            self.read(tmp_path, indexed(grid(0, 1), other[[0, 3, 1, 2]]), indexed(grid(0, 1, 3), other))


FIRST: dict[str, Callable[[np.ndarray], Image.Image]] = {
    "grey 0 and 255": lambda ids: Image.fromarray(np.where(ids > 0, 255, 0).astype(np.uint8)),
    "grey 0 and 128": lambda ids: Image.fromarray(np.where(ids > 0, 128, 0).astype(np.uint8)),
    "white on black, RGB": lambda ids: Image.fromarray(np.where(ids > 0, 255, 0).astype(np.uint8)).convert("RGB"),
    "1 bit": lambda ids: Image.fromarray(ids > 0),
    "grey ids": lambda ids: Image.fromarray(ids),
    "16 bits": lambda ids: Image.fromarray(ids.astype(deep)),
    "16 bits, large ids": lambda ids: Image.fromarray(ids.astype(deep) * 300),
    "paint": lambda ids: Image.fromarray(np.array([BLACK, RED, GREEN, BLUE, WHITE], np.uint8)[ids]),
    "colours of the palette": lambda ids: Image.fromarray(PALETTE[ids]),
    "transparent": lambda ids: Image.fromarray(
        np.array([(9, 9, 9, 0), (*RED, 255), (*BLUE, 255), (*WHITE, 255), (*GREEN, 255)], np.uint8)[ids]
    ),
    "indexed": lambda ids: indexed(ids),
    "indexed, palette of another": lambda ids: indexed(ids, np.array([BLACK, GREEN, MAROON, RED, BLUE], np.uint8)),
    "quantised": lambda ids: Image.fromarray(np.array([BLACK, RED, GREEN, BLUE, WHITE], np.uint8)[ids]).quantize(8),
    "web palette": lambda ids: Image.fromarray(np.array([BLACK, RED, GREEN, BLUE, WHITE], np.uint8)[ids]).convert("P"),
}

EDITED: dict[str, Callable[[Image.Image], Image.Image]] = {
    "as written": lambda image: image,
    "RGB": lambda image: image.convert("RGB"),
    "RGBA": lambda image: image.convert("RGBA"),
    "transparent background": lambda image: Image.composite(
        image.convert("RGBA"), Image.new("RGBA", image.size, (255, 255, 255, 0)), Image.fromarray(np.asarray(image) > 0)
    ),
    "CMYK": lambda image: image.convert("RGB").convert("CMYK"),
    "ids in grey": lambda image: Image.fromarray(np.asarray(image)),
    "ids in 16 bits": lambda image: Image.fromarray(np.asarray(image).astype(deep)),
    "quantised": lambda image: image.convert("RGB").quantize(8),
    "quantised otherwise": lambda image: image.convert("RGB").quantize(8, method=Image.Quantize.MAXCOVERAGE),
}


class TestWhatIsWrittenIsTakenBack:
    @pytest.mark.parametrize("first", FIRST)
    @given(data=st.data())
    @examples(15, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_edited_by_any_program(self, tmp_path: Path, first: str, data: st.DataObject) -> None:
        """A result, saved in any form that keeps its ids or its colours, has the ids that it was written with."""
        squares = data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=4).filter(any))
        file = save(tmp_path / "first.png", FIRST[first](grid(0, *squares)))
        form = first
        try:
            mask = read_mask(file)
            kept = [int(i) for i in np.unique(mask.ids) if i]
            result = grid(0, *data.draw(st.lists(st.sampled_from(kept), min_size=1, max_size=4)), dtype=mask.ids.dtype)
            write_mask(tmp_path / "written.png", result, mask.palette)
            with Image.open(tmp_path / "written.png") as written:
                written.load()
            form = data.draw(st.sampled_from(sorted(EDITED) if written.mode == "P" else ["as written"]))
            suffixes = {
                "CMYK": ["tif"],
                "transparent background": ["png", "tif"],
                "ids in 16 bits": ["png", "tif"],
                "ids in grey": ["png", "tif", "bmp"],
            }
            suffix = data.draw(
                st.sampled_from(suffixes.get(form, ["png", "tif", "bmp"]) if written.mode == "P" else ["png"])
            )
            edited = save(tmp_path / f"edited.{suffix}", EDITED[form](written) if written.mode == "P" else written)
            both = [read_masks({0: file}, {6: edited}), read_masks({6: file}, {0: edited})]
            if form != "ids in grey":  # in a folder, grey 128 and grey 1 may be one object or two
                both.append(read_masks({0: file, 6: edited}))
        except InputError as error:  # a palette without black, or of white and black, in an order of the writer's
            assert "quantised" in form and "which of its colours is the background cannot be told" in str(error)
            return
        for masks in both:
            by_file = {m.path: m for m in masks.values()}
            np.testing.assert_array_equal(by_file[edited].ids, result)
            np.testing.assert_array_equal(by_file[file].ids, mask.ids)
            np.testing.assert_array_equal(by_file[edited].palette, mask.palette)

    def test_as_gif(self, tmp_path: Path) -> None:
        """A GIF has colours alone: its writers sort the palette."""
        file = save(tmp_path / "first.png", colours(BLACK, RED, BLUE, GREEN))
        mask = read_mask(file)
        write_mask(tmp_path / "w.png", grid(0, 3, 1), mask.palette)
        with Image.open(tmp_path / "w.png") as written:
            save(tmp_path / "w.gif", written)
        assert ids_of(read_masks({0: file}, {6: tmp_path / "w.gif"})[6]) == [[0, 3, 1]]

    @given(st.lists(st.integers(1, 255), min_size=1, max_size=6, unique=True), st.integers(0, 2**32 - 1))
    @examples(60, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_alone(self, tmp_path: Path, objects: list[int], seed: int) -> None:
        """Under any palette, however many of its entries are alike."""
        palette = np.random.default_rng(seed).integers(0, 3, (256, 3), np.uint8) * 127
        ids = grid(0, *objects)
        first = save(tmp_path / "first.png", indexed(ids, np.concatenate([PALETTE[:1], palette[1:]])))
        mask = read_mask(first)
        codes = {tuple(colour) for colour in mask.palette.tolist()}
        assert len(codes) == 256 and not mask.palette[0].any()
        write_mask(tmp_path / "a.png", mask.ids, mask.palette)
        again = read_mask(tmp_path / "a.png")
        np.testing.assert_array_equal(again.ids, mask.ids)
        if mask.ids.max() < 255:
            np.testing.assert_array_equal(again.palette, mask.palette)
            with Image.open(tmp_path / "a.png") as written:
                save(tmp_path / "b.png", written.convert("RGB"))
            np.testing.assert_array_equal(read_masks({0: first}, {1: tmp_path / "b.png"})[1].ids, mask.ids)


COLOURS = (
    BLACK,
    WHITE,
    RED,
    GREEN,
    BLUE,
    MAROON,
    OFFICE_GREEN,
    (128, 128, 0),
    (128, 128, 128),
    (9, 9, 9),
    (224, 224, 192),
)
squares = st.lists(st.sampled_from([0, 0, 1, 2, 5, 7, 8, 200, 254, 255]), min_size=1, max_size=4)
palettes = st.lists(st.sampled_from(COLOURS), min_size=256, max_size=256).map(lambda c: np.array(c, np.uint8))


@st.composite
def any_masks(draw: st.DrawFn) -> tuple[Image.Image, str]:
    """A mask in some form, and the suffix of a format for it."""
    ids = grid(*draw(squares))
    palette = draw(palettes)
    form = draw(
        st.sampled_from(["own", "indexed", "grey", "16 bits", "RGB", "RGBA", "bits", "grey alpha", "quantised"])
    )
    rgb = palette[ids]
    if form in ("own", "indexed"):
        if draw(st.booleans()):
            palette[0] = 0
        picture = indexed(ids, PALETTE if form == "own" else palette)
        return picture, draw(st.sampled_from(["png", "gif", "bmp", "tif"]))
    if form == "16 bits":
        return Image.fromarray(ids.astype(deep) * draw(st.sampled_from([1, 257]))), "tif"
    alpha = np.array(draw(st.lists(st.sampled_from([0, 128, 255]), min_size=256, max_size=256)), np.uint8)[ids]
    pictures = {
        "grey": Image.fromarray(ids),
        "RGB": Image.fromarray(rgb),
        "RGBA": Image.fromarray(np.dstack([rgb, alpha])),
        "bits": Image.fromarray(ids > 0),
        "grey alpha": Image.fromarray(np.dstack([ids, alpha])),
        "quantised": Image.fromarray(rgb).quantize(16),
    }
    return pictures[form], "png"


@given(
    labels=st.lists(any_masks(), min_size=1, max_size=2),
    corrections=st.lists(any_masks(), max_size=2),
)
@examples(100, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_whatever_is_given(
    tmp_path: Path, labels: list[tuple[Image.Image, str]], corrections: list[tuple[Image.Image, str]]
) -> None:
    """It is refused, or corrections change no id, each object has a colour of its own, and results are taken back."""
    files = {}
    for k, (picture, suffix) in enumerate([*labels, *corrections]):
        files[k] = save(tmp_path / f"{k}.{suffix}", picture.resize((36, 12), Image.Resampling.NEAREST))
    given_files = {k: files[k] for k in range(len(labels))}
    more = {k: path for k, path in files.items() if k not in given_files}
    try:
        masks = read_masks(given_files, more)
        alone = read_masks(given_files)
    except InputError as error:
        assert "\n" not in str(error)
        return
    palette = masks[0].palette
    assert len({tuple(c) for c in palette.tolist()}) == 256 and not palette[0].any()
    for k, mask in alone.items():
        np.testing.assert_array_equal(masks[k].ids, mask.ids)
    for mask in masks.values():
        write_mask(tmp_path / "written.png", mask.ids, palette)
        with Image.open(tmp_path / "written.png") as written:
            copies = [save(tmp_path / "copy.png", written)]
            if written.mode == "P":
                copies.append(save(tmp_path / "rgb.png", written.convert("RGB")))
        for copy in copies if mask.ids.any() else []:
            np.testing.assert_array_equal(read_masks(given_files, {**more, 9: copy})[9].ids, mask.ids)
