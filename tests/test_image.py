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
from vcorr.image import MAX_PIXELS, displayed_size, open_image, read_rgb, shrink, shrunk_size, write_image


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
