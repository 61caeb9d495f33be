"""Exports of a finished folder, each opened again by a reader that is not ours."""

from __future__ import annotations

import base64
import csv
import io
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageDraw

from tests.toys import HEIGHT, WIDTH, scene
from vcorr.errors import InputError, UsageError
from vcorr.files import write_json
from vcorr.labels.draw import default_palette
from vcorr.labels.given import read_given
from vcorr.labels.keypoint_set import KeypointTable
from vcorr.labels.keypoints import Points
from vcorr.labels.masks import write_mask
from vcorr.media.video import open_video
from vcorr.propagation.export import export

FRAMES = range(1, 7)


def truth(k: int) -> np.ndarray:
    """Two objects, 1 and 300: one of two parts with a hole, absent first; the other leaves and comes back."""
    ids = np.zeros((HEIGHT, WIDTH), np.uint16)
    if k > 1:
        ids[4:20, 2 + k : 20 + k] = 1
        ids[8:14, 8 + k : 12 + k] = 0
        ids[30:32, 3:9] = 1
    if k not in (3, 4):
        ids[28:44, 40:50] = 300
    return ids


@pytest.fixture
def out(tmp_path: Path, frames: Path) -> Path:
    """An output folder as `propagate` leaves it."""
    folder = tmp_path / "out"
    (folder / "masks").mkdir(parents=True)
    for k in FRAMES:
        write_mask(folder / "masks" / f"{k:05d}.png", truth(k), default_palette())
    return manifest(folder, frames, "masks", [1, 300])


def manifest(folder: Path, frames: Path, kind: str, objects: list[int] | list[str], **more: object) -> Path:
    with open_video(str(frames)) as video:
        fingerprint = video.fingerprint()
    data = {
        "format": "vcorr-results-1",
        "inputs": {"video": fingerprint, "kind": kind},
        "options": {"start": FRAMES.start, "end": FRAMES.stop},
        "paths": {"video": str(frames)},
        "video": {"frames": 8, "height": HEIGHT, "width": WIDTH, "fps": 25.0},
        "objects": objects,
        "names": {"300": 'a <b> & "c"'} if kind == "masks" else {},
        "complete": True,
    }
    write_json(folder / "manifest.json", data | more)
    return folder


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # of pycocotools, with numpy 2
def test_coco(out: Path) -> None:
    tools = pytest.importorskip("pycocotools.mask")
    data = json.loads(export(out, "coco").read_text())
    assert data["videos"][0]["file_names"] == [f"{k:05d}.png" for k in FRAMES]
    assert data["videos"][0]["length"] == len(FRAMES)
    for annotation in data["annotations"]:
        for k, counts, box, area in zip(
            FRAMES, annotation["segmentations"], annotation["bboxes"], annotation["areas"], strict=True
        ):
            wanted = truth(k) == annotation["id"]
            if counts is None:
                assert not wanted.any() and box is None and area is None
                continue
            np.testing.assert_array_equal(tools.decode(counts), wanted)
            assert tools.toBbox(counts).tolist() == box and int(tools.area(counts)) == area


def test_coco_and_labelme_are_read_back(out: Path, frames: Path) -> None:
    with open_video(str(frames)) as video:
        found = read_given(video, export(out, "coco"), 0, 8)
        assert list(found.by_frame) == list(FRAMES)
        for k in FRAMES:
            np.testing.assert_array_equal(found.by_frame[k] > 0, truth(k) > 0)
        found = read_given(video, export(out, "labelme") / "00005.json", 0, 8)
        np.testing.assert_array_equal(found.by_frame[0] > 0, truth(5) > 0)


def test_yolo(out: Path) -> None:
    """A polygon is drawn at eight times the size, where the centre of a pixel is far from any edge."""
    folder = export(out, "yolo")
    assert (folder / "classes.txt").read_text().splitlines() == ["1", 'a <b> & "c"']
    for k in FRAMES:
        drawn = np.zeros((2, HEIGHT, WIDTH), bool)
        for line in (folder / f"{k:05d}.txt").read_text().splitlines():
            number, *values = line.split()
            corners = np.array(values, float).reshape(-1, 2) * [WIDTH * 8, HEIGHT * 8]
            image = Image.new("1", (WIDTH * 8, HEIGHT * 8))
            ImageDraw.Draw(image).polygon([tuple(c) for c in corners.tolist()], fill=1)
            drawn[int(number)] ^= np.asarray(image)[4::8, 4::8]
        for i, number in ((1, 0), (300, 1)):
            np.testing.assert_array_equal(drawn[number], truth(k) == i)


def test_labelme(out: Path) -> None:
    folder = export(out, "labelme")
    for k in FRAMES:
        data = json.loads((folder / f"{k:05d}.json").read_text())
        assert (data["imageHeight"], data["imageWidth"], data["imageData"]) == (HEIGHT, WIDTH, None)
        assert data["imagePath"] == f"{k:05d}.png"
        found = np.zeros((HEIGHT, WIDTH), np.uint16)
        for shape in data["shapes"]:
            (x0, y0), (x1, y1) = (map(int, point) for point in shape["points"])
            with Image.open(io.BytesIO(base64.b64decode(shape["mask"]))) as image:
                found[y0 : y1 + 1, x0 : x1 + 1][np.asarray(image)] = shape["group_id"]
        np.testing.assert_array_equal(found, truth(k))


def test_cvat(out: Path) -> None:
    root = ElementTree.parse(export(out, "cvat")).getroot()
    assert root.findtext("version") == "1.1"
    tracks = {track.get("label"): track for track in root.findall("track")}
    assert list(tracks) == ["1", 'a <b> & "c"']
    for i, track in zip((1, 300), tracks.values(), strict=True):
        shown = {}
        for mask in track.findall("mask"):
            counts = [int(n) for n in mask.attrib["rle"].split(",")]
            left, top, width, height = (int(mask.attrib[key]) for key in ("left", "top", "width", "height"))
            found = np.zeros((HEIGHT, WIDTH), bool)
            flags = np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(height, width)
            found[top : top + height, left : left + width] = flags
            shown[int(mask.attrib["frame"])] = (mask.attrib["outside"], found)
        for k in FRAMES:
            wanted = truth(k) == i
            if wanted.any():
                assert shown[k][0] == "0"
                np.testing.assert_array_equal(shown[k][1], wanted)
            else:
                assert k not in shown or shown[k][0] == "1"
    assert [k for k in (3, 4) if k in shown] == [3]  # it says once that it goes


def test_objects_and_table(out: Path) -> None:
    folder, table = export(out, "objects"), export(out, "csv")
    rows = {(int(r["frame"]), int(r["object"])): r for r in csv.DictReader(table.read_text().splitlines())}
    assert len(rows) == 2 * len(FRAMES)
    for k in FRAMES:
        for i in (1, 300):
            with Image.open(folder / str(i) / f"{k:05d}.png") as image:
                wanted = truth(k) == i
                np.testing.assert_array_equal(np.asarray(image), wanted * 255)
                assert int(rows[k, i]["area"]) == wanted.sum()
    assert [rows[5, 300][key] for key in ("x", "y", "width", "height", "centre_x")] == ["40", "28", "10", "16", "44.5"]
    assert rows[3, 300]["x"] == ""


@pytest.mark.parametrize("form", ["alpha", "green"])
def test_cut_outs(out: Path, form: str) -> None:
    path = export(out, form)  # type: ignore[arg-type]
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.width, stream.codec_context.height, stream.average_rate) == (WIDTH, HEIGHT, 25)
        pictures = [frame.to_ndarray(format="rgba") for frame in container.decode(stream)]
        assert stream.codec_context.name == ("prores" if form == "alpha" else "h264")
    assert len(pictures) == len(FRAMES)
    for k, picture in zip(FRAMES, pictures, strict=True):
        inside = truth(k) > 0
        if form == "alpha":
            np.testing.assert_array_equal(picture[..., 3], inside * 255)
        else:
            core = ~np.pad(inside, 3)[6:, 6:] & ~inside  # away from edges, as far as these go
            assert np.abs(picture[core][:, :3].astype(int).mean(0) - (0, 177, 64)).max() < 12
        assert np.abs(picture[inside][:, :3].astype(int) - scene(k)[0][inside]).mean() < 30
    with pytest.raises(UsageError, match="does not hold masks; give one of coco"):
        export(out, "deeplabcut")


def test_keypoints(tmp_path: Path, frames: Path) -> None:
    pandas = pytest.importorskip("pandas")
    names = ("a/nose", "a/tail", "b/nose")
    folder = tmp_path / "points"
    folder.mkdir()
    table = KeypointTable(folder / "keypoints.csv", names, (HEIGHT, WIDTH))
    table.prepare()
    wanted = {k: np.array([[k, 2.5], [np.nan, np.nan], [30 + k, 40.25]]) for k in FRAMES}
    for k in FRAMES:
        table.write(k, Points(wanted[k], np.array([1.0, 0.03, 0.5])))
    table.finish(FRAMES)
    manifest(folder, frames, "keypoints", list(names))
    path = export(folder, "deeplabcut")
    read = pandas.read_csv(path, header=[0, 1, 2, 3], index_col=0)
    assert list(read.index) == list(FRAMES)
    for k in FRAMES:
        for name, xy in zip(names, wanted[k], strict=True):
            individual, part = name.split("/")
            np.testing.assert_array_equal(read.loc[k, "vcorr"][individual][part][["x", "y"]], xy)
    with open_video(str(frames)) as video:
        for form in ("deeplabcut", "coco", "csv"):
            found = read_given(video, export(folder, form), 0, 8)  # type: ignore[arg-type]
            for k in FRAMES:
                np.testing.assert_array_equal(found.by_frame[k].xy, wanted[k])
    with pytest.raises(UsageError, match="does not hold keypoints; give one of coco, deeplabcut"):
        export(folder, "yolo")


def test_what_is_not_finished_is_refused(out: Path, tmp_path: Path, frames: Path) -> None:
    with pytest.raises(InputError, match="is no output folder"):
        export(tmp_path, "coco")
    manifest(out, frames, "masks", [1, 300], complete=False)
    with pytest.raises(InputError, match="is not complete"):
        export(out, "coco")
    manifest(out, frames, "masks", [1, 300], inputs={"video": "another", "kind": "masks"})
    with pytest.raises(InputError, match="is not the video that was labelled"):
        export(out, "green")
    assert not (out / "export" / "green.mp4").exists()
