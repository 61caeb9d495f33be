"""Ids come as a file has them, or not at all."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.evaluation.test_davis_layout import IDS, write
from vcorr.errors import InputError
from vcorr.labels.raw_ids import read_ids


@pytest.mark.parametrize("mode", ["P", "L"])
def test_ids_are_read_as_they_are(tmp_path, mode):
    ids = read_ids(write(tmp_path / "a.png", mode=mode), (2, 3))
    assert ids.dtype == np.uint8
    assert np.array_equal(ids, IDS)


def test_ids_of_sixteen_bits_and_of_one(tmp_path):
    wide = np.array([[0, 300], [65535, 1]], dtype=np.uint16)
    ids = read_ids(write(tmp_path / "a.png", wide, mode="I;16"))
    assert ids.dtype == np.uint16
    assert np.array_equal(ids, wide)
    Image.fromarray(IDS > 0).save(tmp_path / "b.png")
    assert np.array_equal(read_ids(tmp_path / "b.png"), (IDS > 0).astype(np.uint8))


def test_ids_of_four_bits_are_not_stretched(tmp_path):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = b"\0\x01\x20" + b"\0\xf3\x00"  # [[0, 1, 2], [15, 3, 0]], each row padded to whole bytes
    header = struct.pack(">IIBBBBB", 3, 2, 4, 0, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    assert np.array_equal(read_ids(tmp_path / "a.png"), [[0, 1, 2], [15, 3, 0]])


def test_masks_that_are_refused(tmp_path):
    path = write(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a.png: 3x2 pixels where 854x480 are wanted"):
        read_ids(path, (480, 854))
    with pytest.raises(InputError, match=r"none.png: no such file"):
        read_ids(tmp_path / "none.png")
    with pytest.raises(InputError, match=r"rgb.png: pixels of kind RGB where one id a pixel is wanted"):
        read_ids(write(tmp_path / "rgb.png", np.zeros((2, 3, 3), dtype=np.uint8), mode="RGB"))
    Image.fromarray(IDS).save(tmp_path / "jpeg.png", format="JPEG")
    with pytest.raises(InputError, match=r"jpeg.png: not a readable PNG"):
        read_ids(tmp_path / "jpeg.png")
    with pytest.raises(InputError, match="not a readable PNG"):
        read_ids(tmp_path)


def test_damaged_files_are_refused(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (40, 60), dtype=np.uint8)
    whole = write(tmp_path / "a.png", noise).read_bytes()
    damaged = tmp_path / "b.png"
    for end in range(0, len(whole) - 400, 97):
        damaged.write_bytes(whole[:end])
        with pytest.raises(InputError, match=r"b.png: not a readable PNG"):
            read_ids(damaged)
