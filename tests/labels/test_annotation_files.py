"""Masks as annotation tools write them: each form states the same ids, and what cannot be meant is one clear error."""

from __future__ import annotations

import base64
import io
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given as drawn_by
from hypothesis import strategies as st
from PIL import Image

from tests.toys import HEIGHT, WIDTH, scene
from vcorr.errors import InputError, UsageError
from vcorr.labels.formats import rle
from vcorr.labels.formats.polygons import fill, outlines
from vcorr.labels.given import read_given
from vcorr.labels.mask_set import GivenMasks
from vcorr.media.video import open_video

IDS = scene(0)[1]  # two squares: rows 8 to 23, columns 4 to 19, and rows 28 to 43, columns 40 to 55
RED = [[4, 8], [20, 8], [20, 24], [4, 24]]
BLUE = [[40, 28], [56, 28], [56, 44], [40, 44]]


def given(frames: Path, path: Path, **changes: object) -> GivenMasks:
    with open_video(str(frames)) as video:
        found = read_given(video, path, 0, len(video), **changes)  # type: ignore[arg-type]
    assert isinstance(found, GivenMasks)
    return found


def flat(polygon: list[list[int]]) -> list[int]:
    return [v for corner in polygon for v in corner]


def coco(segmentations: dict[str, list[object]], names: tuple[str, ...] = ("goat", "kid")) -> dict[str, object]:
    return {
        "images": [{"id": i, "file_name": n, "height": HEIGHT, "width": WIDTH} for i, n in enumerate(segmentations)],
        "categories": [{"id": k, "name": name} for k, name in enumerate(names)],
        "annotations": [
            {"id": 10 * i + k, "image_id": i, "category_id": k, "segmentation": s, "iscrowd": 0}
            for i, listed in enumerate(segmentations.values())
            for k, s in enumerate(listed)
        ],
    }


def labelme(*shapes: dict[str, object]) -> dict[str, object]:
    return {
        "version": "5.0", "flags": {}, "shapes": list(shapes), "imagePath": "x.png", "imageData": None,
        "imageHeight": HEIGHT, "imageWidth": WIDTH,
    }  # fmt: skip


def shape(label: str, points: list[list[int]], kind: str = "polygon", **more: object) -> dict[str, object]:
    return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}, **more}


def counts(mask: np.ndarray, *, text: bool = False) -> dict[str, object]:
    found = rle.encode(mask)
    return {"size": [HEIGHT, WIDTH], "counts": rle.to_text(found) if text else found}


def pasted(label: str, mask: np.ndarray) -> dict[str, object]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    y0, y1, x0, x1 = rows[0], rows[-1], columns[0], columns[-1]
    content = io.BytesIO()
    Image.fromarray(mask[y0 : y1 + 1, x0 : x1 + 1]).save(content, "PNG")
    box = [[int(x0), int(y0)], [int(x1), int(y1)]]
    return shape(label, box, "mask", mask=base64.b64encode(content.getvalue()).decode())


def forms() -> dict[str, object]:
    both = IDS == 1, IDS == 2
    video = {
        "videos": [{"id": 1, "height": HEIGHT, "width": WIDTH, "file_names": ["00000.jpg", "00001.jpg"]}],
        "categories": [{"id": 0, "name": "goat"}, {"id": 1, "name": "kid"}],
        "annotations": [
            {"id": k, "video_id": 1, "category_id": k, "segmentations": [counts(m, text=True), None]}
            for k, m in enumerate(both)
        ],
    }
    return {
        "polygons": coco({"frame_00000.png": [[flat(RED)], [flat(BLUE)]]}),
        "counts": coco({"frame_00000.png": [counts(m) for m in both]}),
        "text": coco({"frame_00000.png": [counts(m, text=True) for m in both]}),
        "video": video,
        "labelme": labelme(shape("goat", RED), shape("kid", BLUE)),
        "labelme boxes": labelme(shape("goat", RED[::2], "rectangle"), shape("kid", BLUE[::2], "rectangle")),
        "labelme masks": labelme(pasted("goat", both[0]), pasted("kid", both[1])),
    }


@pytest.mark.parametrize("form", list(forms()))
def test_each_form_states_the_same(frames: Path, tmp_path: Path, form: str) -> None:
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(forms()[form]))
    found = given(frames, path)
    np.testing.assert_array_equal(found.by_frame[0], IDS)
    assert found.described == {"objects": [1, 2], "names": {"1": "goat", "2": "kid"}}
    assert "labels frame 0: objects 1 (goat), 2 (kid)" in found.told(0, "0")


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int64", ">i4", "bool"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_state_ids(frames: Path, tmp_path: Path, dtype: str, order: str) -> None:
    ids = IDS > 0 if dtype == "bool" else IDS * (150 if dtype != "uint8" else 1)
    np.save(tmp_path / "ids.npy", np.array(ids, dtype, order=order))
    np.testing.assert_array_equal(given(frames, tmp_path / "ids.npy").by_frame[0], ids)


def test_names_keep_their_ids_in_later_frames(frames: Path, tmp_path: Path) -> None:
    folder = tmp_path / "labels"
    folder.mkdir()
    (folder / "00000.json").write_text(json.dumps(labelme(shape("goat", RED))))
    Image.fromarray(scene(0)[0]).save(folder / "00000.png")  # the picture that it was drawn on
    (folder / "00004.json").write_text(json.dumps(labelme(shape("kid", BLUE), shape("goat", RED))))
    later = tmp_path / "later.json"
    later.write_text(json.dumps(coco({"frame_00006.png": [[flat(RED)], [flat(BLUE)]]}, ("new", "kid"))))
    found = given(frames, folder, at={6: later})
    assert list(found.by_frame) == [0, 4, 6]
    assert found.described["names"] == {"1": "goat", "2": "kid", "3": "new"}
    assert found.by_frame[4].max() == 2 and set(np.unique(found.by_frame[6])) == {0, 2, 3}
    with pytest.raises(InputError, match="labels frame 6, not frame 5; say --at 6="):
        given(frames, folder, at={5: later})
    with pytest.raises(UsageError, match=r"frame 4 is labelled by .* already"):
        given(frames, folder, at={4: later})


def test_numbers_are_ids_and_go_with_other_masks(frames: Path, mask: Path, tmp_path: Path) -> None:
    later = tmp_path / "later.json"
    later.write_text(json.dumps(labelme(shape("7", RED, group_id=3), shape("2", BLUE))))
    found = given(frames, mask, at={3: later})
    assert set(np.unique(found.by_frame[3])) == {0, 2, 7}
    later.write_text(json.dumps(labelme(shape("goat", RED))))
    with pytest.raises(InputError, match=r"names its objects \(goat\): which is which cannot be told"):
        given(frames, mask, at={3: later})


def changed(data: object, old: str, new: str) -> str:
    text = json.dumps(data)
    assert old in text
    return text.replace(old, new)


POLYGONS, COUNTS = forms()["polygons"], forms()["counts"]
TWO_POINTS = labelme(shape("goat", RED[:2]))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (json.dumps(TWO_POINTS), r"shape 0 \('goat'\) has a polygon of 2 points; a polygon needs three"),
        (changed(POLYGONS, "4, 8, 20, 8, 20, 24, 4, 24", "4, 8, 20, 8"), "frame_.* has a polygon of 2 points"),
        (changed(POLYGONS, "4, 8, 20, 8, 20, 24, 4, 24", "4, 8, 20, 8, 20, 24, 4"), "has the corner"),
        (changed(POLYGONS, "4, 8, 20", '"4,5", 8, 20'), "a decimal comma"),
        (changed(POLYGONS, "4, 8, 20", "1e300, 8, 20"), "has the corner"),
        (changed(POLYGONS, '"height": 48', '"height": 24'), "is 64x24, but the video is 64x48"),
        (changed(POLYGONS, '"height": 48', '"height": -1'), "has the height -1"),
        (changed(COUNTS, "[48, 64]", "[64, 48]"), "has run lengths of"),
        (changed(COUNTS, '"counts": [', '"counts": [5, '), "its counts sum to"),
        (changed(COUNTS, '"counts": [', '"counts": [-5, 5, '), "whole numbers from 0"),
        (changed(forms()["text"], '"counts": "', '"counts": "\\u00e9'), "its counts hold"),
        (json.dumps(coco({})), "holds no mask"),
        ("{}", "is neither LabelMe nor COCO"),
        ('{"shapes": []}', "has a picture of"),
        (json.dumps(labelme()), "has no shapes"),
        (json.dumps(labelme(shape("", RED))), "shape 0 has no label"),
        (json.dumps(labelme(shape("goat", RED, "linestrip"))), "has no area"),
        (json.dumps(labelme(shape("70000", RED))), "ids must lie in 1 to 65534"),
        (json.dumps(labelme(shape("goat", RED[:2], "mask", mask="????"))), "holds no readable PNG"),
        (changed(labelme(shape("goat", RED)), '"imageWidth": 64', '"imageWidth": 1e9'), "has a picture of"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_one_error(frames: Path, tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "labels.json"
    path.write_text(text)
    with pytest.raises(InputError, match=words) as error:
        given(frames, path)
    assert len(str(error.value)) < 500


def test_arrays_that_are_no_masks_are_refused(frames: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    for array, words in (
        (np.full((HEIGHT, WIDTH), -1), "holds values from -1 to -1; ids must lie in 0 to 65534"),
        (np.full((HEIGHT, WIDTH), 70_000), "ids must lie in"),
        (np.ones((HEIGHT, WIDTH, 3), int), "is an array 48x64x3; save ids as"),
        (np.ones((HEIGHT, WIDTH // 2), int), "is 32x48, but the video is 64x48"),
        (np.ones((HEIGHT, WIDTH), complex), "of complex128"),
        (np.array([{}], object), "is no array of plain numbers"),  # pickled
    ):
        np.save(path, array)
        with pytest.raises(InputError, match=words):
            given(frames, path, kind="masks")
    np.save(path, IDS)
    whole = path.read_bytes()
    for content in (whole[:300], whole.replace(b"(48, 64)", b"(999999999, 64)"), b"", b"PK\3\4"):
        path.write_bytes(content)
        with pytest.raises(InputError, match="is no array of plain numbers"):
            given(frames, path, kind="masks")


@drawn_by(st.integers(0, 2**30 - 1))
def test_outlines_fill_to_the_same_mask(bits: int) -> None:
    mask = np.array([bits >> i & 1 for i in range(30)], bool).reshape(5, 6)
    again = np.zeros_like(mask)
    for corners, _ in outlines(mask):
        again ^= fill(corners, (5, 6))
    np.testing.assert_array_equal(again, mask)
    assert rle.from_text(rle.to_text(rle.encode(mask))) == rle.encode(mask)
    np.testing.assert_array_equal(rle.decode(rle.encode(mask), (5, 6)), mask)


def test_run_lengths_and_polygons_are_those_of_pycocotools() -> None:
    tools = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(0)
    for density in (0.02, 0.5, 0.98):
        mask = rng.random((61, 47)) < density
        theirs = tools.encode(np.asfortranarray(mask.astype(np.uint8)))
        assert theirs["counts"].decode() == rle.to_text(rle.encode(mask))
        np.testing.assert_array_equal(rle.decode(rle.from_text(theirs["counts"].decode()), (61, 47)), mask)
    polygon = [10.3, 5.2, 60.1, 20.7, 50.5, 70.2, 30.0, 40.0, 5.6, 66.6]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        theirs = tools.decode(tools.frPyObjects([polygon], 80, 80))[..., 0].astype(bool)
    ours = fill(np.array(polygon).reshape(-1, 2), (80, 80))
    assert (ours & theirs).sum() / (ours | theirs).sum() > 0.95
