"""The DAVIS folder layout: what is listed, how masks are read, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from vcorr.errors import InputError
from vcorr.evaluation import davis_layout
from vcorr.media.video import open_video

IDS = np.array([[0, 1, 2], [255, 3, 0]], dtype=np.uint8)


def write(path, ids=IDS, mode="P"):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(ids)
    if mode == "P":
        image = Image.frombytes("P", image.size, image.tobytes())
        image.putpalette([7 * i % 256 for i in range(768)])
    image.save(path)
    return path


def data_set(root, *, annotated=(0, 1, 2), frames=3, names=("bear", "ant"), listed=None):
    for name in names:
        for i in annotated:
            write(root / f"Annotations/480p/{name}/{i:05d}.png")
        for i in range(frames):
            write(root / f"JPEGImages/480p/{name}/{i:05d}.jpg", mode="L")
    if listed is not None:
        (root / "ImageSets/2017").mkdir(parents=True)
        (root / "ImageSets/2017/val.txt").write_text(listed)
    return root


def test_sequences_follow_the_list(tmp_path):
    data_set(tmp_path, names=("bear", "ant", "cow"), listed="cow\n\n bear \ncow\n")
    cow, bear = davis_layout.sequences(tmp_path)
    assert (cow.name, bear.name) == ("cow", "bear")
    assert cow.images == tmp_path / "JPEGImages/480p/cow"
    assert cow.frames == tuple(tmp_path / f"JPEGImages/480p/cow/{i:05d}.jpg" for i in range(3))
    assert cow.annotations == tuple(tmp_path / f"Annotations/480p/cow/{i:05d}.png" for i in range(3))


def test_names_stand_in_for_the_list(tmp_path):
    data_set(tmp_path, names=("bear", "ant", "cow"), listed="cow\n")
    assert [s.name for s in davis_layout.sequences(tmp_path, names=["bear", "ant"])] == ["bear", "ant"]


def test_without_lists_every_folder_is_a_sequence(tmp_path):
    data_set(tmp_path)
    (tmp_path / "Annotations/480p/readme.txt").write_text("")
    (tmp_path / "Annotations/480p/.cache").mkdir()
    assert [s.name for s in davis_layout.sequences(tmp_path)] == ["ant", "bear"]


def test_annotations_on_some_frames(tmp_path):
    data_set(tmp_path, annotated=(2, 12, 22), frames=25, names=("plane",))
    (plane,) = davis_layout.sequences(tmp_path)
    assert [a.stem for a in plane.annotations] == ["00002", "00012", "00022"]
    assert (len(plane.frames), plane.start) == (25, 2)


def test_frames_are_in_the_one_order_of_frames(tmp_path):
    for k in range(12):
        write(tmp_path / f"Annotations/480p/bear/{k}.png")
        write(tmp_path / f"JPEGImages/480p/bear/{k}.png", mode="L")
    (bear,) = davis_layout.sequences(tmp_path)
    names = [str(k) for k in range(12)]
    assert [frame.stem for frame in bear.frames] == open_video(bear.images).names == names
    assert [mask.stem for mask in bear.annotations] == names


def test_hidden_files_are_no_frames(tmp_path):
    data_set(tmp_path, names=("bear",))
    for folder in ("Annotations", "JPEGImages"):
        (tmp_path / folder / "480p/bear/._00000.png").write_bytes(b"\0")
        (tmp_path / folder / "480p/bear/notes.txt").write_text("")
    (bear,) = davis_layout.sequences(tmp_path)
    assert len(bear.annotations) == len(bear.frames) == 3


def test_images_are_needed_only_to_start(tmp_path):
    data_set(tmp_path, names=("bear",), frames=0)
    (bear,) = davis_layout.sequences(tmp_path)
    assert bear.frames == ()
    with pytest.raises(InputError, match="JPEGImages/480p/bear: no images of this sequence"):
        _ = bear.start


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(InputError, match="nowhere/Annotations/480p: no such folder; give the root"):
        davis_layout.sequences(tmp_path / "nowhere")
    data_set(tmp_path, listed="bear\n")
    with pytest.raises(InputError, match=r"2017/test.txt: no list of this split, there are: val; "):
        davis_layout.sequences(tmp_path, "test")
    with pytest.raises(InputError, match="480p/beer: no annotation of this sequence; did you mean bear"):
        davis_layout.sequences(tmp_path, names=["beer"])
    with pytest.raises(InputError, match="Full-Resolution: no such folder"):
        davis_layout.sequences(tmp_path, resolution="Full-Resolution")
    with pytest.raises(InputError, match="no sequence to take"):
        davis_layout.sequences(tmp_path, names=[])
    write(tmp_path / "Annotations/480p/bear/00007.png")
    with pytest.raises(InputError, match=r"bear/00007.png: no frame of this name in .*JPEGImages/480p/bear"):
        davis_layout.sequences(tmp_path)
    for mask in (tmp_path / "Annotations/480p/bear").iterdir():
        mask.unlink()
    with pytest.raises(InputError, match="480p/bear: no annotation of this sequence; add its masks"):
        davis_layout.sequences(tmp_path)


@pytest.mark.parametrize("name", ["../bear", "..", ".", "/etc", "a\\b"])
def test_a_list_does_not_lead_out_of_the_folder(tmp_path, name):
    data_set(tmp_path, listed=f"{name}\n")
    with pytest.raises(InputError, match="is not the name of a sequence"):
        davis_layout.sequences(tmp_path)


def test_a_list_that_is_no_text(tmp_path):
    data_set(tmp_path, listed="")
    (tmp_path / "ImageSets/2017/val.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"val.txt: not a readable list"):
        davis_layout.sequences(tmp_path)


def test_void_is_background_in_an_annotation(tmp_path):
    assert np.array_equal(davis_layout.read_annotation(write(tmp_path / "a.png")), [[0, 1, 2], [0, 3, 0]])
    with pytest.raises(InputError, match=r"b.png: 16 bits a pixel; annotations of DAVIS have 8 bits"):
        davis_layout.read_annotation(write(tmp_path / "b.png", IDS.astype(np.uint16), mode="I;16"))
