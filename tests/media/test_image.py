"""Still images: limits, formats, and files that appear whole or not at all."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vcorr.errors import InputError, OutputError
from vcorr.media.image import (
    MAX_PIXELS,
    displayed_size,
    load_upright,
    open_image,
    read_rgb,
    shrink,
    shrunk_size,
    write_image,
)


@given(st.integers(1, 9000), st.integers(1, 9000), st.one_of(st.none(), st.integers(1, 5000)))
def test_shrunk_size(height: int, width: int, short_side: int | None) -> None:
    small = shrunk_size(height, width, short_side)
    if short_side is None or min(height, width) <= short_side:
        assert small == (height, width)
    else:
        assert min(small) == short_side
        assert abs(max(small) - max(height, width) * short_side / min(height, width)) <= 0.5


def test_shrink_averages_what_it_drops() -> None:
    stripes = np.zeros((60, 60, 3), np.uint8)
    stripes[::2] = 200
    assert np.abs(shrink(stripes, (20, 20))[2:-2].astype(int) - 100).max() <= 12
    assert shrink(stripes, (60, 60)) is stripes


def test_only_the_header_is_read_on_opening(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.effect_noise((300, 200), 50).save(path)
    path.write_bytes(path.read_bytes()[:500])
    with open_image(path) as image:
        assert displayed_size(image) == (200, 300)
    with pytest.raises(InputError, match="damaged or cut short"):
        read_rgb(path)


@pytest.mark.slow
def test_large_images_are_refused_without_a_warning(tmp_path: Path) -> None:
    for side in (8300, 10_000, 15_000):
        assert side * side > MAX_PIXELS
        Image.new("1", (side, side)).save(tmp_path / "a.png")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(InputError, match="pixels"):
                read_rgb(tmp_path / "a.png")


def test_hostile_exif_does_not_matter(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        exif = b"Exif\0\0" + b"MM\0*\0\0\0\x08" + rng.bytes(40)
        Image.new("RGB", (4, 3)).save(tmp_path / "a.jpg", exif=exif)
        with open_image(tmp_path / "a.jpg") as image:
            size = displayed_size(image)
        assert read_rgb(tmp_path / "a.jpg").shape == (*size, 3)


@pytest.mark.parametrize("tag", [None, 1, 6])
@pytest.mark.parametrize("mode", ["P", "L", "I;16", "RGB"])
def test_an_image_is_turned_once_whoever_turns_it(tmp_path: Path, mode: str, tag: int | None) -> None:
    """Pillow turns TIFF by its tag, or by its XMP where there is no tag, but names the size by the tag alone."""
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    stored = np.arange(12, dtype=np.uint16 if mode == "I;16" else np.uint8).reshape(3, 4)
    image = Image.merge("RGB", [Image.fromarray(stored)] * 3) if mode == "RGB" else Image.fromarray(stored)
    if mode == "P":
        image.putpalette(range(36))
    for name, options in {
        "a.tif": {"tiffinfo": {700: xmp} | ({} if tag is None else {0x0112: tag})},
        "b.tif": {"tiffinfo": {0x0112: tag or 1}, "compression": "tiff_adobe_deflate"},
        "a.png": {"exif": Image.Exif()},
    }.items():
        if "exif" in options:
            options["exif"][0x0112] = tag or 1
        image.save(tmp_path / name, **options)
        turned = tag == 6 or (tag is None and name == "a.tif")
        with open_image(tmp_path / name) as read:
            size = displayed_size(read)
            upright = load_upright(read, tmp_path / name)
        wanted = np.rot90(stored, -1) if turned else stored
        assert size == wanted.shape and upright.mode == mode
        np.testing.assert_array_equal(np.asarray(upright).reshape(*wanted.shape, -1)[:, :, 0], wanted)


def test_a_png_is_turned_by_what_stands_before_its_pixels(tmp_path: Path) -> None:
    """Size and pixels go by the same: a header alone cannot know of EXIF that follows the pixels."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (4, 3)).save(tmp_path / "a.png", exif=exif)
    content = (tmp_path / "a.png").read_bytes()
    start = content.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(content[start : start + 4], "big")
    (tmp_path / "a.png").write_bytes(content[:start] + content[end:-12] + content[start:end] + content[-12:])
    with open_image(tmp_path / "a.png") as image:
        assert displayed_size(image) == load_upright(image, tmp_path / "a.png").size[::-1] == (3, 4)
    assert read_rgb(tmp_path / "a.png").shape == (3, 4, 3)


def test_writing(tmp_path: Path) -> None:
    image = Image.new("RGB", (4, 3), (1, 2, 3))
    write_image(tmp_path / "a.PNG", image)
    assert read_rgb(tmp_path / "a.PNG")[0, 0].tolist() == [1, 2, 3]
    (tmp_path / "folder.png").mkdir()
    for name, what in (
        ("missing/a.png", "cannot be written"),
        ("folder.png", "cannot be written"),
        ("a.xyz", "no image format"),
        ("a", "no image format"),
    ):
        with pytest.raises(OutputError, match=what):
            write_image(tmp_path / name, image)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.PNG", "folder.png"]


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write_image(path, Image.new("L", (4, 3), 7))
    with pytest.raises(OutputError):
        write_image(path, Image.new("F", (4, 3)))
    assert read_rgb(path)[0, 0].tolist() == [7, 7, 7] and len(list(tmp_path.iterdir())) == 1
