"""Keypoint files: each form states the same points, and what cannot be meant is one clear error."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.toys import HEIGHT, WIDTH
from vcorr.errors import InputError
from vcorr.labels.given import read_given
from vcorr.labels.keypoint_set import GivenKeypoints, holds_points, read_point_table
from vcorr.media.video import open_video

PLACES = {"nose": (12.5, 16.0), "tail": (48.0, 36.25)}

PLAIN = "frame,point,x,y\n0,nose,12.5,16\n0,tail,48,36.25\n4,nose,20,16\n4,tail,,\n"
DEEPLABCUT = (
    "scorer,me,me,me,me\nbodyparts,nose,nose,tail,tail\ncoords,x,y,x,y\n"
    "labeled-data/v/img0000.png,12.5,16,48,36.25\nlabeled-data/v/img0004.png,20,16,,\nlabeled-data/v/img0006.png,,,,\n"
)
PREDICTED = (
    "scorer,net,net,net,net,net,net\nbodyparts,nose,nose,nose,tail,tail,tail\n"
    "coords,x,y,likelihood,x,y,likelihood\n0,12.5,16,0.9,48,36.25,1\n4,20,16,1,,,\n"
)
THREE_CELLS = (
    "scorer,,,me,me,me,me\nbodyparts,,,nose,nose,tail,tail\ncoords,,,x,y,x,y\n"
    "labeled-data,v,img0000.png,12.5,16,48,36.25\nlabeled-data,v,img0004.png,20,16,,\n"
)


def coco(pictures: dict[str, list[dict[str, object]]], names: tuple[str, ...] = ("nose", "tail")) -> str:
    images = [{"id": i, "file_name": n, "width": WIDTH, "height": HEIGHT} for i, n in enumerate(pictures)]
    annotations = [
        {"id": 10 * i + j, "image_id": i, "category_id": 3, **annotation}
        for i, listed in enumerate(pictures.values())
        for j, annotation in enumerate(listed)
    ]
    categories = [{"id": 3, "name": "mouse", "keypoints": list(names)}]
    return json.dumps({"images": images, "annotations": annotations, "categories": categories})


COCO = coco(
    {
        "frame_00000.png": [{"keypoints": [12.5, 16, 2, 48, 36.25, 1]}],
        "frame_00004.png": [{"keypoints": [20, 16, 2, 0, 0, 0]}],
    }
)
JOINTS = json.dumps(
    {
        "joint_names": ["nose", "tail"],
        "frames": {
            "00000": {"xy": [[12.5, 16], [48, 36.25]], "visible": [1, 1]},
            "00004": {"xy": [[20, 16], [0, 0]], "visible": [1, 0]},
        },
    }
)


def given(frames: Path, path: Path, **changes: object) -> GivenKeypoints:
    with open_video(str(frames)) as video:
        found = read_given(video, path, 0, len(video), **changes)  # type: ignore[arg-type]
    assert isinstance(found, GivenKeypoints)
    return found


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("plain.csv", PLAIN),
        ("semicolons.csv", PLAIN.replace(",", ";")),
        ("mark.csv", "\ufeff" + PLAIN),
        ("hidden.csv", PLAIN.replace("x,y\n", "x,y,visible\n").replace("16\n", "16,1\n").replace("25\n", "25,1\n")
         .replace("tail,,\n", "tail,30,30,0\n")),
        ("deeplabcut.csv", DEEPLABCUT),
        ("predicted.csv", PREDICTED),
        ("three.csv", THREE_CELLS),
        ("coco.json", COCO),
        ("joints.json", JOINTS),
    ],
)  # fmt: skip
def test_each_form_states_the_same(frames: Path, tmp_path: Path, name: str, text: str) -> None:
    path = write(tmp_path / name, text)
    assert holds_points(path)
    found = given(frames, path)
    assert found.objects == ["nose", "tail"]
    assert list(found.by_frame) == [0, 4]
    np.testing.assert_array_equal(found.by_frame[0].xy, list(PLACES.values()))
    assert found.by_frame[4].present.tolist() == [True, False]
    assert found.told(4, "4").endswith("labels frame 4: 1 of 2 points; missing tail")


def test_individuals_are_kept_apart(frames: Path, tmp_path: Path) -> None:
    table = (
        "scorer,s,s,s,s,s,s\nindividuals,m1,m1,m2,m2,single,single\nbodyparts,nose,nose,nose,nose,door,door\n"
        "coords,x,y,x,y,x,y\n0,1,2,3,4,5,6\n"
    )
    found = given(frames, write(tmp_path / "dlc.csv", table))
    assert found.objects == ["m1/nose", "m2/nose", "single/door"]
    assert found.by_frame[0].xy.tolist() == [[1, 2], [3, 4], [5, 6]]
    two = [{"keypoints": [1, 2, 2, 0, 0, 0], "track_id": 7}, {"keypoints": [3, 4, 2, 0, 0, 0], "track_id": 9}]
    found = given(frames, write(tmp_path / "coco.json", coco({"00000.png": two, "00003.png": two[::-1]})))
    assert found.objects == ["7/nose", "7/tail", "9/nose", "9/tail"]
    assert found.by_frame[3].xy[0].tolist() == [1, 2]
    for annotation in two:
        del annotation["track_id"]
    with pytest.raises(
        InputError, match="which is which in the others cannot be told; give each annotation a track_id"
    ):
        given(frames, write(tmp_path / "coco.json", coco({"00000.png": two, "00003.png": two})))


def test_a_picture_whose_name_says_no_frame_labels_the_one_asked_for(frames: Path, tmp_path: Path) -> None:
    one = [{"keypoints": [12, 16, 2, 48, 36, 2]}]
    path = write(tmp_path / "coco.json", coco({"IMG_2041.jpg": one}))
    assert list(given(frames, path).by_frame) == [0]
    first = write(tmp_path / "first.csv", PLAIN.split("4,nose")[0])
    assert list(given(frames, first, at={5: path}).by_frame) == [0, 5]
    with pytest.raises(InputError, match="labels frame 0, not frame 5; say --at 0="):
        given(frames, path, at={5: first})


def broken(change: dict[str, object]) -> str:
    return json.dumps(json.loads(COCO) | change)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "", "is empty"),
        ("a.csv", "t,name,x,y\n0,nose,1,2\n", "has no column frame and none point"),
        ("a.csv", PLAIN.replace("12.5", '"12,5"'), "x of nose, frame 0 is 12,5: a decimal comma"),
        ("a.csv", PLAIN.replace("12.5", "12,5"), "row 2 has 5 values where the first row names 4"),
        ("a.csv", PLAIN.replace("12.5", "left"), "x of nose, frame 0 is 'left', no number"),
        ("a.csv", PLAIN.replace("12.5", "inf"), "x of nose, frame 0 is infinite"),
        ("a.csv", PLAIN.replace("12.5", "64"), r"nose of frame 0 at \(64, 16\), outside the frame of 64x48"),
        ("a.csv", PLAIN.replace("4,nose", "8,nose"), "labels frame 8, but the video has frames 0 to 7"),
        ("a.csv", PLAIN.replace("4,nose", "-1,nose"), "row 4 has the frame '-1'"),
        ("a.csv", PLAIN.replace("4,nose", "0,nose"), "row 4 places nose of frame 0 again"),
        ("a.csv", "frame,point,x,y\n0,nose,,\n", "places no point"),
        ("a.csv", DEEPLABCUT.replace("coords", "coordinates"), "begins with the rows"),
        ("a.csv", DEEPLABCUT.replace("img0004", "img0000"), "again; give each frame one row"),
        ("a.csv", DEEPLABCUT.replace("img0004", "img0044"), "44, but the video has frames 0 to 7"),
        ("a.csv", DEEPLABCUT.replace("x,y,x,y", "x,y,x,likelihood"), "has no x and y of tail"),
        ("a.csv", DEEPLABCUT.replace("12.5,", ""), "row 4 has 4 values where the header has 5"),
        ("a.json", "{", "is no valid JSON"),
        ("a.json", "[" * 100_000, "nests too deep"),
        ("a.json", "[1]", "holds no JSON object"),
        ("a.json", JOINTS.replace("[12.5, 16]", "[12.5]"), "nose of frame '00000' lies at"),
        ("a.json", JOINTS.replace("[12.5, 16], ", ""), "has no place for each of 2 joints"),
        ("a.json", JOINTS.replace('["nose", "tail"]', "7"), "names its joints 7"),
        ("a.json", JOINTS.replace("12.5", "1e999"), "is infinite"),
        ("a.json", JOINTS.replace("12.5", "1" * 4000), "x of nose, frame 00000 is 1111"),
        ("a.json", JOINTS.replace("12.5", "1" * 5000), "is no valid JSON"),
        ("a.json", COCO.replace("[12.5, ", "["), "no x, y, v for each of 2 keypoints"),
        ("a.json", COCO.replace('"image_id": 1', '"image_id": 7'), "annotation 10 is of no picture"),
        ("a.json", broken({"images": 3, "joint_names": ["a"]}), "has no table of frames"),
        ("a.json", broken({"categories": None}), "has no list of categories"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_one_error(frames: Path, tmp_path: Path, name: str, text: str, words: str) -> None:
    path = write(tmp_path / name, text)
    with pytest.raises(InputError, match=words) as error:
        given(frames, path, kind="keypoints")
    assert str(path) in str(error.value)
    assert len(str(error.value)) < 500


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    for name, content in {"a.csv": b"\xff\xfe\0\1", "b.csv": b"frame,point,x,y\n\0,\0", "c.xlsx": b"PK"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError):
            read_point_table(tmp_path / name)
    with pytest.raises(InputError, match="does not exist"):
        read_point_table(tmp_path / "none.csv")
