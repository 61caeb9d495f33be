"""What a mask file states, whatever program wrote it: the object is the object, and the background the background."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from PIL import Image, ImageFilter, PngImagePlugin

from tests.examples import examples
from tests.labels.pictures import BLACK, BLUE, GREEN, PALETTE, RED, WHITE, colours, grid, indexed, png, save
from vcorr.errors import InputError
from vcorr.labels.masks import read_mask
from vcorr.media.image import read_pixels

TWO_WAYS = (
    "the background cannot be told; save it as RGB with a black background, .*, or as grey whose values are the ids"
)


def disc(side: int = 100) -> np.ndarray:
    y, x = np.mgrid[:side, :side] - side / 2
    return (y**2 + x**2 < (side / 3) ** 2).astype(np.uint8)


class TestOrderOfThePalette:
    """Index 0 is the background where it is black; where it is not, the colours say what is, or nobody does."""

    @pytest.mark.parametrize("suffix", ["png", "gif", "bmp", "tif"])
    @given(order=st.permutations([BLACK, RED, GREEN, BLUE]))
    @examples(24, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_black_is_the_background(self, tmp_path: Path, suffix: str, order: list[tuple[int, ...]]) -> None:
        places = np.array([order.index(c) for c in (BLACK, RED, GREEN, BLUE)], np.uint8)
        picture = indexed(places[grid(1, 0, 2, 3)], np.array(order, np.uint8))
        mask = read_mask(save(tmp_path / f"m.{suffix}", picture))
        assert (mask.ids[0, ::12] == 0).tolist() == [False, True, False, False]
        assert [tuple(mask.palette[i].tolist()) for i in mask.ids[0, ::12]] == [RED, BLACK, GREEN, BLUE]
        if suffix != "gif" and order[0] == BLACK:
            np.testing.assert_array_equal(mask.ids, places[grid(1, 0, 2, 3)])  # then the indices are ids

    @pytest.mark.parametrize("order", [(WHITE, RED), (RED, WHITE), (WHITE, BLACK), (WHITE, BLACK, (90, 90, 90))])
    def test_what_cannot_be_told_is_refused_with_both_ways_out(
        self, tmp_path: Path, order: tuple[tuple[int, ...], ...]
    ) -> None:
        path = save(tmp_path / "m.png", indexed(grid(*range(len(order))), np.array(order, np.uint8)))
        with pytest.raises(InputError, match=TWO_WAYS):
            read_mask(path)
        if BLACK not in order:
            with pytest.raises(InputError, match=TWO_WAYS):
                read_mask(save(tmp_path / "m.gif", colours(*order)))

    def test_an_unused_index_0_says_nothing(self, tmp_path: Path) -> None:
        palette = np.array([WHITE, BLACK, RED, GREEN], np.uint8)
        assert read_mask(save(tmp_path / "m.png", indexed(grid(1, 2), palette))).ids[0, ::12].tolist() == [0, 1]
        assert read_mask(save(tmp_path / "m.png", indexed(grid(2, 3), palette))).ids[0, ::12].tolist() == [2, 3]

    def test_a_palette_that_ends_early_or_in_black_leaves_ids_as_they_are(self, tmp_path: Path) -> None:
        for palette in ([0, 0, 0, 128, 0, 0] + [0] * 18, [0, 0, 0, 128, 0, 0] + [0] * 762, [0, 0, 0] * 256):
            picture = Image.fromarray(grid(0, 1, 5, 7))
            picture.putpalette(palette)
            mask = read_mask(save(tmp_path / "m.png", picture))
            np.testing.assert_array_equal(mask.ids, grid(0, 1, 5, 7))
            assert len({tuple(mask.palette[i].tolist()) for i in (0, 1, 5, 7)}) == 4

    def test_a_reordered_palette_of_results(self, tmp_path: Path) -> None:
        result = indexed(grid(0, 2, 5, 3))
        for method in (Image.Quantize.MEDIANCUT, Image.Quantize.MAXCOVERAGE, Image.Quantize.FASTOCTREE):
            mask = read_mask(save(tmp_path / "m.png", result.convert("RGB").quantize(16, method=method)))
            np.testing.assert_array_equal(mask.ids, grid(0, 2, 5, 3))
        np.testing.assert_array_equal(read_mask(save(tmp_path / "m.gif", result)).ids, grid(0, 2, 5, 3))


class TestTransparency:
    @pytest.mark.parametrize("clear", [0, 1, 2])
    def test_a_transparent_index_is_background(self, tmp_path: Path, clear: int) -> None:
        palette = np.roll(np.array([WHITE, RED, BLUE], np.uint8), clear, axis=0)  # white is the transparent one
        codes = np.roll(np.arange(3, dtype=np.uint8), -clear)[grid(0, 1, 2)]
        for transparency in (clear, bytes(0 if i == clear else 255 for i in range(3))):
            path = save(tmp_path / "m.png", indexed(codes, palette), transparency=transparency)
            mask = read_mask(path)
            assert (mask.ids[0, ::12] > 0).tolist() == [False, True, True] and mask.background == "transparent"
            assert {tuple(mask.palette[i].tolist()) for i in mask.ids[0, 12::12]} == {RED, BLUE}
        mask = read_mask(save(tmp_path / "m.gif", indexed(codes, palette), transparency=clear))
        assert (mask.ids[0, ::12] > 0).tolist() == [False, True, True]

    def test_colour_under_transparent_pixels_does_not_count(self, tmp_path: Path) -> None:
        mask = read_mask(save(tmp_path / "m.png", colours((*GREEN, 0), (*RED, 255), (*RED, 0), (*BLUE, 255))))
        assert mask.ids[0, ::12].tolist() == [0, 2, 0, 1]
        with pytest.raises(InputError, match="holds no object"):
            read_mask(save(tmp_path / "n.png", colours((*GREEN, 0), (*RED, 0))))

    def test_a_layer_of_one_opacity_has_its_colours(self, tmp_path: Path) -> None:
        mask = read_mask(save(tmp_path / "m.png", colours((0, 0, 0, 0), (*RED, 100), (*BLUE, 100))))
        assert mask.palette[1:3].tolist() == [list(BLUE), list(RED)]

    def test_grey(self, tmp_path: Path) -> None:
        la = np.stack([grid(200, 255, 7), grid(0, 255, 255)], axis=2)
        np.testing.assert_array_equal(read_mask(save(tmp_path / "la.png", la)).ids, grid(0, 0, 7))  # 255 is void
        np.testing.assert_array_equal(
            read_mask(save(tmp_path / "l.png", grid(7, 1, 2), transparency=7)).ids, grid(0, 1, 2)
        )
        (tmp_path / "4.png").write_bytes(png(grid(3, 1, 2).astype(int), 4, extra=(b"tRNS", b"\0\3")))
        np.testing.assert_array_equal(read_mask(tmp_path / "4.png").ids, grid(0, 1, 2))
        one = Image.fromarray(grid(0, 1).astype(bool))
        np.testing.assert_array_equal(read_mask(save(tmp_path / "1.png", one, transparency=0)).ids, grid(0, 1))


class TestDepth:
    def test_white_of_16_bits_is_void_beside_ids(self, tmp_path: Path) -> None:
        mask = read_mask(save(tmp_path / "m.png", grid(0, 1, 65535, dtype=np.uint16)))
        np.testing.assert_array_equal(mask.ids, grid(0, 1, 0))
        assert mask.notes == ("value 65535 (144 pixels) is void, taken as background",)

    @pytest.mark.parametrize("top", [3, 100, 4095])
    def test_a_graymap_of_another_range_keeps_its_values(self, tmp_path: Path, top: int) -> None:
        ids = grid(0, 1, 2, 3)
        data = ids.tobytes() if top < 256 else ids.astype(">u2").tobytes()
        (tmp_path / "m.pgm").write_bytes(b"P5\n%d %d\n%d\n" % (*ids.shape[::-1], top) + data)
        np.testing.assert_array_equal(read_mask(tmp_path / "m.pgm").ids, ids)
        text = " ".join(map(str, ids.ravel()))
        (tmp_path / "p.pgm").write_text(f"P2 {ids.shape[1]} {ids.shape[0]} {top} {text}\n")
        np.testing.assert_array_equal(read_mask(tmp_path / "p.pgm").ids, ids)

    @pytest.mark.parametrize("top", [255, 1023, 65535])
    def test_white_is_told_by_the_number_in_the_file(self, tmp_path: Path, top: int) -> None:
        ids = grid(0, 1)
        data = (ids.astype(int) * top).astype("u1" if top < 256 else ">u2").tobytes()
        (tmp_path / "m.pgm").write_bytes(b"P5\n%d %d\n%d\n" % (*ids.shape[::-1], top) + data)
        mask = read_mask(tmp_path / "m.pgm")
        np.testing.assert_array_equal(mask.ids, ids)
        assert f"object 1 (value {top})" in mask.told("0")

    def test_inverted_grey_can_be_read_two_ways(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="two ways"):
            read_mask(save(tmp_path / "m.tif", grid(255, 0), tiffinfo={262: 0}))
        fax = Image.fromarray(grid(0, 1).astype(bool))
        np.testing.assert_array_equal(read_mask(save(tmp_path / "f.tif", fax, compression="group4")).ids, grid(0, 1))

    def test_colour_of_16_bits_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "m.png").write_bytes(png(grid(0, 1).astype(int), 16, kind=2, channels=3))
        with pytest.raises(InputError, match="colour of 16 bits a channel; save it with 8 bits"):
            read_mask(tmp_path / "m.png")

    def test_a_tiff_may_be_lossy(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="TIFF compressed as jpeg: its compression changes values"):
            read_mask(save(tmp_path / "m.tif", colours(BLACK, RED), compression="jpeg"))


@pytest.mark.parametrize(
    "convert",
    [
        lambda image: image.convert("CMYK"),
        lambda image: image.convert("YCbCr"),
        lambda image: image.convert("RGBA"),
        lambda image: image.convert("RGBX"),
    ],
)
def test_any_kind_of_colour(tmp_path: Path, convert: Callable[[Image.Image], Image.Image]) -> None:
    mask = read_mask(save(tmp_path / "m.tif", convert(Image.fromarray(colours(BLACK, RED, BLUE)))))
    assert (mask.ids[0, ::12] > 0).tolist() == [False, True, True] and len(np.unique(mask.ids)) == 3


def test_chunks_on_how_to_show_colours_change_nothing(tmp_path: Path) -> None:
    """A mask is read as stored: gamma, sRGB and profiles are for people."""
    plain = read_mask(save(tmp_path / "m.png", colours(BLACK, (200, 100, 50))))
    for kind, content in ((b"gAMA", (100_000).to_bytes(4, "big")), (b"sRGB", b"\0"), (b"iCCP", b"x\0\0bad")):
        chunks = PngImagePlugin.PngInfo()
        chunks.add(kind, content)
        mask = read_mask(save(tmp_path / "g.png", colours(BLACK, (200, 100, 50)), pnginfo=chunks))
        np.testing.assert_array_equal(mask.ids, plain.ids)
        np.testing.assert_array_equal(mask.palette, plain.palette)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["indexed.png", "grey.tif", "deep.png", "colour.png", "few.tif"])
def test_a_mask_is_turned_as_frames_are(tmp_path: Path, kind: str, orientation: int) -> None:
    ids = np.kron(np.array([[1, 2, 0], [0, 3, 3]], np.uint8), np.ones((4, 4), np.uint8))
    picture = {
        "indexed.png": indexed(ids),
        "grey.tif": Image.fromarray(ids),
        "deep.png": Image.fromarray(ids.astype(np.uint16)),
        "colour.png": Image.fromarray(PALETTE[ids]),
        "few.tif": indexed(ids),
    }[kind]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / kind, picture, exif=exif)
    save(tmp_path / "frame.png", PALETTE[ids], exif=exif)
    frame = read_pixels(tmp_path / "frame.png")
    mask = read_mask(path, size=frame.shape[:2])
    np.testing.assert_array_equal(PALETTE[mask.ids], frame)


def test_a_mask_that_lies_on_its_side_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is 24x12, but the video is 12x24, turned by 90 degrees"):
        read_mask(save(tmp_path / "m.png", grid(0, 1)), size=(24, 12))


class TestSoftEdges:
    """A shade between two areas is an edge, in whatever depth and palette it is stored."""

    @pytest.mark.parametrize(("radius", "two"), [(0.6, True), (1, False), (3, True)])
    @pytest.mark.parametrize(
        "form",
        [
            lambda rgb: Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 257),
            lambda rgb: Image.fromarray((np.asarray(rgb.convert("L")) / 255 * 4095).astype(np.uint16)),
            lambda rgb: rgb.quantize(64),
            lambda rgb: rgb.quantize(16, method=Image.Quantize.FASTOCTREE),
            lambda rgb: rgb.quantize(8, method=Image.Quantize.MAXCOVERAGE),
            lambda rgb: rgb.quantize(palette=indexed(grid(0)), dither=Image.Dither.NONE),
            lambda rgb: rgb.convert("P", palette=Image.Palette.WEB, dither=Image.Dither.NONE),
            lambda rgb: rgb.convert("L").quantize(4),
            lambda rgb: Image.fromarray(np.asarray(rgb.convert("L")) // 64 * 85),
        ],
    )
    def test_refused(
        self, tmp_path: Path, form: Callable[[Image.Image], Image.Image], two: bool, radius: float
    ) -> None:
        ids = disc(70)
        if two:
            ids[5:20, 5:30] = 2
        rgb = Image.fromarray(np.array([BLACK, WHITE, RED], np.uint8)[ids]).filter(ImageFilter.GaussianBlur(radius))
        with pytest.raises(InputError, match=r"soft edges|is dithered|cannot be told|a picture"):
            read_mask(save(tmp_path / "m.png", form(rgb)))

    @pytest.mark.slow
    def test_ids_that_are_thin_are_objects(self, tmp_path: Path) -> None:
        """A ball beside a player, a belt, a rope, cells of a pixel or two; a large label map."""
        ids = np.zeros((60, 80), np.uint8)
        ids[5:40, 5:30], ids[20:22, 5:30], ids[22:40, 5:30] = 1, 2, 3
        ids[50:52, 60:62] = 8  # the colour of 8 in the palette lies between those of 0 and 1
        ids[np.arange(60), np.arange(60) // 2 + 45] = 9
        np.testing.assert_array_equal(read_mask(save(tmp_path / "m.png", indexed(ids))).ids, ids)
        rng = np.random.default_rng(0)
        cells = np.zeros((200, 200), np.uint16)
        for k in range(1, 900):
            y, x = rng.integers(0, 195, 2)
            cells[y : y + rng.integers(1, 12), x : x + rng.integers(1, 12)] = rng.integers(1, 60_000) if k % 2 else k
        np.testing.assert_array_equal(read_mask(save(tmp_path / "c.png", cells)).ids, cells)

    def test_dithered(self, tmp_path: Path) -> None:
        shade = Image.fromarray((disc() * 128).astype(np.uint8))
        for picture in (shade.convert("1"), Image.fromarray(PALETTE[disc()]).convert("P")):
            with pytest.raises(InputError, match=r"is dithered: \d+ pixels are unlike all of their neighbours"):
                read_mask(save(tmp_path / "m.png", picture))
