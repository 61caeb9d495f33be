"""Masks from any program become the ids that their author meant, or are refused in one line."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image, ImageDraw, ImageFilter

from tests.labels.pictures import BLACK, BLUE, GREEN, PALETTE, RED, WHITE, colours, grid, indexed, png, save
from vcorr.errors import InputError, OutputError
from vcorr.labels.masks import label_files, read_mask, read_masks, write_mask


def blocks(ids: np.ndarray) -> np.ndarray:
    """Each id an area, however small: single pixels of many ids are the pattern of a dithered picture."""
    return np.kron(ids, np.ones((3, 3), ids.dtype))


shapes = array_shapes(min_dims=2, max_dims=2, max_side=7)
ids8 = arrays(np.uint8, shapes).filter(np.any).map(blocks)
ids16 = arrays(np.uint16, shapes, elements=st.integers(0, 65534)).filter(np.any).map(blocks)


class TestRoundTrip:
    @given(ids=st.one_of(ids8, ids16), seed=st.integers(0, 2**32 - 1))
    @settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_ids_and_colours_come_back_unchanged(self, tmp_path: Path, ids: np.ndarray, seed: int) -> None:
        rgb = 1 + np.random.default_rng(seed).choice(256**3 - 1, 256, replace=False)  # no two alike
        palette = np.stack([rgb >> 16, rgb >> 8 & 255, rgb & 255], -1).astype(np.uint8)
        palette[0] = 0
        write_mask(tmp_path / "m.png", ids, palette)
        mask = read_mask(tmp_path / "m.png", size=ids.shape)
        np.testing.assert_array_equal(mask.ids, ids)
        assert mask.ids.dtype == (np.uint8 if ids.max() <= 255 else np.uint16) and mask.notes == ()
        if ids.dtype == np.uint8 and ids.max() < 255:
            np.testing.assert_array_equal(mask.palette, palette)

    def test_kind_of_file(self, tmp_path: Path) -> None:
        for ids, mode in ((grid(0, 254), "P"), (grid(0, 255), "I;16"), (grid(0, 3, dtype=np.uint16), "I;16")):
            write_mask(tmp_path / "m.png", ids, PALETTE)
            with Image.open(tmp_path / "m.png") as image:
                assert image.mode == mode
        assert [p.name for p in tmp_path.iterdir()] == ["m.png"]

    def test_what_cannot_be_written(self, tmp_path: Path) -> None:
        ids = grid(0, 1)
        (tmp_path / "folder.png").mkdir()
        for name in ("missing/m.png", "folder.png"):
            with pytest.raises(OutputError, match="cannot be written"):
                write_mask(tmp_path / name, ids, PALETTE)
        for bad in (ids.astype(np.int64), ids[None], grid(0, 65535, dtype=np.uint16)):
            with pytest.raises(ValueError, match=r"a mask is uint8|ids must lie in 0 to 65534"):
                write_mask(tmp_path / "m.png", bad, PALETTE)
        with pytest.raises(ValueError, match="palette must be uint8"):
            write_mask(tmp_path / "m.png", ids, PALETTE[:4])
        with pytest.raises(ValueError, match=r"goes to \.png"):
            write_mask(tmp_path / "m.jpg", ids, PALETTE)
        assert [p.name for p in tmp_path.iterdir()] == ["folder.png"]


class TestGrey:
    @pytest.mark.parametrize(("values", "noted"), [((0, 1), False), ((0, 255), False), ((0, 7), True), ((1, 2), True)])
    def test_two_values_are_one_object(self, tmp_path: Path, values: tuple[int, int], noted: bool) -> None:
        mask = read_mask(save(tmp_path / "m.png", grid(*values)))
        np.testing.assert_array_equal(mask.ids, grid(0, 1))
        assert bool(mask.notes) == noted and mask.ids.dtype == np.uint8

    def test_more_values_are_ids(self, tmp_path: Path) -> None:
        mask = read_mask(save(tmp_path / "m.png", grid(0, 1, 2, 7)))
        np.testing.assert_array_equal(mask.ids, grid(0, 1, 2, 7))
        np.testing.assert_array_equal(mask.palette, PALETTE)

    def test_255_beside_ids_is_void(self, tmp_path: Path) -> None:
        for name, image in (("l.png", Image.fromarray(grid(0, 1, 2, 255))), ("p.png", indexed(grid(0, 1, 255)))):
            mask = read_mask(save(tmp_path / name, image))
            assert mask.ids.max() < 3 and not mask.ids[:, -12:].any()
            assert mask.notes == ("value 255 (144 pixels) is void, taken as background",)

    def test_255_alone_in_an_indexed_file_is_an_object(self, tmp_path: Path) -> None:
        mask = read_mask(save(tmp_path / "m.png", indexed(grid(0, 255))))
        np.testing.assert_array_equal(mask.ids, grid(0, 1))
        assert "taken as object 1" in mask.notes[0]

    def test_bilevel(self, tmp_path: Path) -> None:
        np.testing.assert_array_equal(read_mask(save(tmp_path / "m.png", grid(0, 1).astype(bool))).ids, grid(0, 1))

    @pytest.mark.parametrize("bits", [2, 4])
    def test_few_bits_are_not_stretched(self, tmp_path: Path, bits: int) -> None:
        (tmp_path / "m.png").write_bytes(png(np.array([[0, 1, 2, 3]] * 4), bits))
        np.testing.assert_array_equal(read_mask(tmp_path / "m.png").ids, [[0, 1, 2, 3]] * 4)

    def test_sixteen_bits(self, tmp_path: Path) -> None:
        mask = read_mask(save(tmp_path / "m.png", grid(0, 255, 300, dtype=np.uint16)))
        assert np.unique(mask.ids).tolist() == [0, 255, 300] and mask.ids.dtype == np.uint16 and not mask.notes
        np.testing.assert_array_equal(
            read_mask(save(tmp_path / "w.tif", grid(0, 65535, dtype=np.uint16))).ids, grid(0, 1)
        )
        with pytest.raises(InputError, match="holds values from -1 to 70000"):
            read_mask(save(tmp_path / "i.tif", grid(-1, 70_000, dtype=np.int32)))
        np.testing.assert_array_equal(
            read_mask(save(tmp_path / "f.tif", grid(0, 1, 7, dtype=np.float32))).ids, grid(0, 1, 7)
        )
        for bad in (0.5, np.nan, np.inf):
            with pytest.raises(InputError, match="holds fractions"):
                read_mask(save(tmp_path / "f.tif", np.array([0, bad], np.float32)[grid(0, 1)]))

    def test_grey_saved_in_colour_is_grey(self, tmp_path: Path) -> None:
        mask = read_mask(save(tmp_path / "m.png", colours(BLACK, (1, 1, 1), (2, 2, 2), WHITE)))
        np.testing.assert_array_equal(mask.ids, grid(0, 1, 2, 0))
        np.testing.assert_array_equal(read_mask(save(tmp_path / "w.png", colours(BLACK, WHITE))).ids, grid(0, 1))


class TestColour:
    def test_each_colour_is_an_object_and_keeps_its_colour(self, tmp_path: Path) -> None:
        mask = read_mask(save(tmp_path / "m.png", colours(WHITE, RED, BLACK, BLUE, RED)))
        np.testing.assert_array_equal(mask.ids, grid(3, 2, 0, 1, 2))
        assert mask.palette[:4].tolist() == [[0, 0, 0], [0, 0, 255], [255, 0, 0], [255, 255, 255]]

    def test_colours_of_the_default_palette_have_their_ids(self, tmp_path: Path) -> None:
        ids = grid(0, 5, 2, 7)
        mask = read_mask(save(tmp_path / "m.png", PALETTE[ids]))
        np.testing.assert_array_equal(mask.ids, ids)
        np.testing.assert_array_equal(mask.palette, PALETTE)

    def test_transparent_is_background(self, tmp_path: Path) -> None:
        mask = read_mask(save(tmp_path / "m.png", colours((255, 255, 255, 0), (*RED, 255), (*GREEN, 255))))
        np.testing.assert_array_equal(mask.ids, grid(0, 2, 1))

    def test_a_mask_without_black_says_so(self, tmp_path: Path) -> None:
        """White may be the paper, and is asked about."""
        mask = read_mask(save(tmp_path / "m.png", colours(GREEN, RED)))
        np.testing.assert_array_equal(mask.ids, grid(1, 2))
        assert "no background" in mask.notes[0]
        with pytest.raises(InputError, match=r"white ones: an object or the background\?; save it as RGB with a black"):
            read_mask(save(tmp_path / "w.png", colours(WHITE, RED)))

    def test_many_objects(self, tmp_path: Path) -> None:
        codes = np.arange(1, 401).reshape(20, 20).repeat(5, axis=0).repeat(5, axis=1)
        rgb = np.stack([codes // 256 * 40, codes % 256, codes * 7 % 256], axis=2).astype(np.uint8)
        mask = read_mask(save(tmp_path / "m.png", rgb))
        assert mask.ids.dtype == np.uint16 and np.unique(mask.ids).tolist() == list(range(1, 401))

    @pytest.mark.parametrize(("front", "back"), [(RED, BLACK), (WHITE, BLACK), (GREEN, BLUE)])
    def test_soft_edges_are_refused(self, tmp_path: Path, front: tuple[int, ...], back: tuple[int, ...]) -> None:
        image = Image.new("RGB", (400, 400), back)
        ImageDraw.Draw(image).ellipse((80, 80, 320, 300), fill=front)
        with pytest.raises(
            InputError, match=r"soft edges: \d+ stray .* of \d+ pixels in all, such as .* at x=\d+ y=\d+; .*anti"
        ):
            read_mask(save(tmp_path / "soft.png", image.resize((100, 100), Image.Resampling.BILINEAR)))
        hard = read_mask(save(tmp_path / "hard.png", image.resize((100, 100), Image.Resampling.NEAREST)))
        assert len(np.unique(hard.ids)) == 2

    @pytest.mark.parametrize("mode", ["RGB", "L"])
    def test_a_feathered_brush_and_traces_of_jpeg_are_refused(self, tmp_path: Path, mode: str) -> None:
        image = Image.new(mode, (100, 80))
        ImageDraw.Draw(image).ellipse((20, 20, 75, 60), fill=RED if mode == "RGB" else 255)
        save(tmp_path / "lossy.jpg", image, quality=90)
        with Image.open(tmp_path / "lossy.jpg") as lossy:
            save(tmp_path / "lossy.png", lossy)
        for radius in (1, 4):
            save(tmp_path / f"{radius}.png", image.filter(ImageFilter.GaussianBlur(radius)))
        for name in ("lossy.png", "1.png", "4.png"):
            with pytest.raises(InputError, match="soft edges"):
                read_mask(tmp_path / name)

    def test_one_row_of_one_mixed_colour_is_a_soft_edge(self, tmp_path: Path) -> None:
        rgb = colours(BLACK, RED)
        rgb[:, 12] = (128, 0, 0)
        with pytest.raises(InputError, match=r"1 stray colours of 12 pixels in all, such as #800000 at x=12 y=0"):
            read_mask(save(tmp_path / "m.png", rgb))

    def test_thin_and_tiny_objects_are_not_taken_for_edges(self, tmp_path: Path) -> None:
        image = Image.new("RGB", (120, 100))
        draw = ImageDraw.Draw(image)
        draw.rectangle((10, 10, 60, 60), fill=RED)
        draw.line((0, 99, 119, 20), fill=(0, 128, 255))  # a rope
        draw.rectangle((100, 5, 101, 6), fill=(255, 255, 0))  # a ball
        assert np.unique(read_mask(save(tmp_path / "m.png", image)).ids).tolist() == [0, 1, 2, 3]
        ids = np.zeros((40, 60), np.uint8)
        ids[5:20, 5:30], ids[20:22, 5:30], ids[22:40, 5:30] = 1, 2, 3  # a belt between shirt and trousers
        np.testing.assert_array_equal(read_mask(save(tmp_path / "l.png", ids)).ids, ids)

    def test_a_photograph_is_no_mask(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(0)
        for shape in ((60, 80, 3), (60, 80)):
            with pytest.raises(InputError, match="a picture, not a mask"):
                read_mask(save(tmp_path / "m.png", rng.integers(0, 256, shape, np.uint8)))


class TestIndexed:
    def test_the_index_counts_and_the_palette_stays(self, tmp_path: Path) -> None:
        """But for the background, which is black in what is written, and for what is as black as that."""
        palette = np.array([[9, 9, 9], [200, 10, 10], [0, 0, 0], [10, 200, 10]], np.uint8)
        mask = read_mask(save(tmp_path / "m.png", indexed(grid(0, 1, 2, 3), palette)))
        np.testing.assert_array_equal(mask.ids, grid(0, 1, 2, 3))
        np.testing.assert_array_equal(mask.palette[[1, 3]], palette[[1, 3]])
        np.testing.assert_array_equal(mask.palette[[0, 2, *range(4, 256)]], PALETTE[[0, 2, *range(4, 256)]])

    def test_a_palette_of_greys_gives_way(self, tmp_path: Path) -> None:
        greys = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
        np.testing.assert_array_equal(read_mask(save(tmp_path / "m.png", indexed(grid(0, 1), greys))).palette, PALETTE)

    @pytest.mark.parametrize("suffix", ["gif", "bmp"])
    def test_other_formats(self, tmp_path: Path, suffix: str) -> None:
        path = save(
            tmp_path / f"m.{suffix}", indexed(grid(0, 1, 2)), **({"optimize": False} if suffix == "gif" else {})
        )
        np.testing.assert_array_equal(read_mask(path).ids, grid(0, 1, 2))


class TestRefusals:
    def test_another_size(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"is 24x12, but the video is 20x10; .*vcorr frame"):
            read_mask(save(tmp_path / "m.png", grid(0, 1)), size=(10, 20))

    def test_no_object(self, tmp_path: Path) -> None:
        for name, pixels in (("l.png", grid(0, 0)), ("rgb.png", colours(BLACK, BLACK)), ("p.png", indexed(grid(0, 0)))):
            with pytest.raises(InputError, match="holds no object"):
                read_mask(save(tmp_path / name, pixels))

    @pytest.mark.parametrize("kind", ["jpg", "webp"])
    def test_lossy_formats_are_explained(self, tmp_path: Path, kind: str) -> None:
        with pytest.raises(InputError, match=r"is a (JPEG|WEBP): its compression changes values"):
            read_mask(save(tmp_path / f"m.{kind}", colours(BLACK, RED)))
        (tmp_path / f"m.{kind}").rename(tmp_path / "renamed.png")
        with pytest.raises(InputError, match="its compression changes values"):
            read_mask(tmp_path / "renamed.png")

    def test_several_pictures(self, tmp_path: Path) -> None:
        one = Image.fromarray(grid(0, 1))
        for name in ("m.tif", "m.gif"):
            with pytest.raises(InputError, match="holds 2 pictures"):
                read_mask(save(tmp_path / name, one, save_all=True, append_images=[Image.fromarray(grid(1, 0))]))

    def test_a_pixel_bomb(self, tmp_path: Path) -> None:
        path = tmp_path / "m.png"
        for side in (9000, 12_000, 60_000):
            path.write_bytes(png(np.zeros((1, 1), int), 8, size=(side, side)))
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                with pytest.raises(InputError, match="pixels"):
                    read_mask(path)

    def test_not_an_image(self, tmp_path: Path) -> None:
        for name, content in {
            "empty.png": b"",
            "text.png": b"no mask",
            "zeros.png": bytes(999),
            "m.csv": b"x,y\n",
        }.items():
            (tmp_path / name).write_bytes(content)
        for name in ("empty.png", "text.png", "zeros.png", "m.csv", "missing.png", "."):
            with pytest.raises(InputError) as refused:
                read_mask(tmp_path / name)
            assert "\n" not in str(refused.value)

    @pytest.mark.slow
    @pytest.mark.parametrize("kind", ["png", "tif", "gif", "bmp", "ppm"])
    def test_cut_or_changed_anywhere(self, tmp_path: Path, kind: str) -> None:
        buffer = io.BytesIO()
        image = Image.fromarray(PALETTE[grid(0, 1, 2)]) if kind == "ppm" else indexed(grid(0, 1, 2))
        image.save(buffer, kind.replace("tif", "tiff"))
        content, rng, read = buffer.getvalue(), np.random.default_rng(0), 0
        hostile = [content[:length] for length in range(0, len(content), max(1, len(content) // 40))]
        for _ in range(60):
            changed = bytearray(content)
            for place in rng.integers(0, len(changed), rng.choice([1, 3, 10])):
                changed[place] = rng.integers(256)
            hostile.append(bytes(changed))
        for bytes_ in hostile:
            (tmp_path / "m.png").write_bytes(bytes_)
            try:
                read += read_mask(tmp_path / "m.png").ids.ndim == 2
            except InputError as error:
                assert "\n" not in str(error)
        assert read < len(hostile)


class TestFolders:
    SIZE = (12, 24)

    def folder(self, tmp_path: Path, masks: dict[str, np.ndarray | Image.Image]) -> Path:
        folder = tmp_path / "masks"
        folder.mkdir()
        for name, pixels in masks.items():
            save(folder / name, pixels)
        return folder

    def test_bad_folders(self, tmp_path: Path) -> None:
        good = grid(0, 1)
        for masks, what in (
            ({}, "holds no mask files"),
            ({"0.png": good, "1.png": grid(0, 1, 0)}, "is 36x12, but the video is 24x12"),
            ({"0.png": grid(0, 0), "1.png": grid(0, 0)}, "holds no object"),
        ):
            folder = self.folder(tmp_path, masks)
            with pytest.raises(InputError, match=what):
                read_masks(label_files(folder, frames=5), size=self.SIZE)
            folder.rename(tmp_path / f"done-{what[:8]}-{len(masks)}")

    def test_one_type_for_a_video(self, tmp_path: Path) -> None:
        for k, top in enumerate((1, 300)):
            write_mask(tmp_path / f"{k}.png", grid(0, top, dtype=np.uint16), PALETTE)
        write_mask(tmp_path / "2.png", grid(0, 2), PALETTE)
        masks = read_masks({k: tmp_path / f"{k}.png" for k in range(3)})
        assert [mask.ids.max() for mask in masks.values()] == [1, 300, 2]
        assert {mask.ids.dtype for mask in masks.values()} == {np.dtype(np.uint16)}
