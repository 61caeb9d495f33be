"""The protocol of YouTube-VOS: values worked out by hand, a second implementation, what is refused, and labelling."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from typer.testing import CliRunner

from tests.evaluation.metrics.test_masks import slow_f
from tests.toys import scene
from vcorr.cli import app
from vcorr.errors import InputError
from vcorr.evaluation import sequences
from vcorr.evaluation.youtube_vos import check_submission, evaluate_youtube_vos, tasks
from vcorr.evaluation.youtube_vos_layout import SEEN, given_ids, is_annotated, read_seen, videos

SIZE = (60, 80)


def save(path: Path, ids: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(ids).save(path)
    return path


def box(*boxes: tuple[int, tuple[int, int, int, int]]) -> np.ndarray:
    """Ids of boxes: (id, (top, left, height, width))."""
    ids = np.zeros(SIZE, np.uint8)
    for k, (top, left, height, width) in boxes:
        ids[top : top + height, left : left + width] = k
    return ids


def meta(root: Path, **listed: dict[str, tuple[str, list[str]]]) -> Path:
    """A meta.json of videos: object -> (category, frames)."""
    root.mkdir(parents=True, exist_ok=True)
    entries = {
        name: {"objects": {k: {"category": c, "frames": f} for k, (c, f) in objects.items()}}
        for name, objects in listed.items()
    }
    (root / "meta.json").write_text(json.dumps({"videos": entries}))
    return root


ONE, OTHER = (10, 10, 10, 20), (35, 40, 12, 15)
FRAMES = ["00000", "00005", "00010", "00015"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A dog from frame 0 on, and a spider, id 7, from frame 5 on; annotated throughout."""
    root = meta(tmp_path / "root", park={"1": ("dog", FRAMES), "7": ("spider", FRAMES[1:])})
    for frame in FRAMES:
        save(root / f"Annotations/park/{frame}.png", box((1, ONE), *([(7, OTHER)] if frame != "00000" else [])))
    return root


def test_seen_and_unseen_by_hand(root, tmp_path) -> None:
    # The dog is scored in frames 5, 10, 15: right, moved by one column, empty. The spider in 10 and 15: right, empty.
    moved = (ONE[0], ONE[1] + 1, *ONE[2:])
    pred = tmp_path / "pred/park"
    save(pred / "00005.png", box((1, ONE)))  # the spider begins here: whether it is found does not count
    save(pred / "00010.png", box((1, moved), (7, OTHER)))
    save(pred / "00015.png", box())
    scores = evaluate_youtube_vos(root, tmp_path / "pred", workers=1)
    seen, unseen = scores.group(True), scores.group(False)
    assert seen is not None and unseen is not None
    assert seen.j.mean == pytest.approx((1 + 19 / 21 + 0) / 3)  # 10 x 20 moved by a column shares 19 of 21
    assert seen.f.mean == pytest.approx((1 + 1 + 0) / 3)  # contours agree within a pixel
    assert (unseen.j.mean, unseen.f.mean) == (0.5, 0.5)
    assert scores.overall == pytest.approx((seen.j.mean + seen.f.mean + 0.5 + 0.5) / 4)
    assert scores.gap == pytest.approx((seen.j.mean + seen.f.mean) / 2 - 0.5)
    told = json.loads(json.dumps(scores.to_json()))
    assert told["overall"] == scores.overall
    assert [(o["id"], o["seen"], o["frames"]) for o in told["videos"][0]["objects"]] == [(1, True, 3), (7, False, 2)]
    assert [row[:2] for row in scores.rows()] == [("seen", "1"), ("unseen", "1"), ("all objects alike", "2"),
                                                  ("overall: mean of the four", "")]  # fmt: skip
    assert {len(row) for row in scores.rows()} == {len(scores.columns)}
    assert [row[:4] for row in scores.csv()[1:]] == [("park", 1, "dog", True), ("park", 7, "spider", False)]


def test_the_given_frame_can_count(root, tmp_path) -> None:
    for frame in FRAMES:
        save(tmp_path / f"pred/park/{frame}.png", box((1, ONE)))
    spider = evaluate_youtube_vos(root, tmp_path / "pred", workers=1, given=True).objects(False)[0]
    assert spider.frames == tuple(FRAMES[1:]) and spider.js == (0, 0, 0)


def test_an_object_before_it_begins_does_not_count(root, tmp_path) -> None:
    truth = {frame: np.array(Image.open(root / f"Annotations/park/{frame}.png")) for frame in FRAMES}
    for frame, ids in truth.items():
        save(tmp_path / f"pred/park/{frame}.png", ids)
    early = truth["00005"].copy()
    early[:5] = 7
    save(tmp_path / "pred/park/00005.png", early)
    assert evaluate_youtube_vos(root, tmp_path / "pred", workers=1).overall == 1


def test_only_listed_frames_count(root, tmp_path) -> None:
    listed = {"1": ("dog", ["00000", "00010"]), "7": ("spider", FRAMES[1:])}
    meta(root, park=listed)
    for frame in FRAMES[1:]:
        save(tmp_path / f"pred/park/{frame}.png", box((1, ONE), (7, OTHER)) if frame == "00010" else box((7, OTHER)))
    dog, spider = evaluate_youtube_vos(root, tmp_path / "pred", workers=1).objects()
    assert (dog.frames, dog.js) == (("00010",), (1.0,))
    assert spider.frames == ("00010", "00015")


def test_an_object_that_is_given_last_has_no_score(root, tmp_path) -> None:
    meta(root, park={"1": ("dog", FRAMES), "7": ("spider", FRAMES[3:])})
    for frame in FRAMES[1:]:
        save(tmp_path / f"pred/park/{frame}.png", box((1, ONE)))
    scores = evaluate_youtube_vos(root, tmp_path / "pred", workers=1)
    assert [o.id for o in scores.objects()] == [1]
    assert (scores.overall, scores.gap, scores.group(False)) == (None, None, None)
    assert scores.rows()[1] == ("unseen", "0", "-", "-", "-")
    assert scores.to_json()["unseen"] is None


def slow_score(
    truth: dict[str, np.ndarray], found: dict[str, np.ndarray], listed: dict[int, list[str]], seen: set[int]
):
    """The published description once more: each object over its frames after the first, then the four means."""
    groups: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    for k, frames in listed.items():
        js, fs = [], []
        for frame in frames[1:]:
            m, g = found[frame] == k, truth[frame] == k
            js.append((m & g).sum() / (m | g).sum() if (m | g).any() else 1.0)
            fs.append(slow_f(m, g, 0.008))
        if js:
            groups[k in seen].append((math.fsum(js) / len(js), math.fsum(fs) / len(fs)))
    if not (groups[True] and groups[False]):
        return None
    return sum(np.mean([g[i] for g in groups[s]]) for s in (True, False) for i in (0, 1)) / 4


IDS = (1, 4, 300)  # the last needs 16 bits
SMALL = arrays(np.uint16, (7, 9), elements=st.sampled_from([0, 0, *IDS]))


@pytest.mark.slow
@settings(max_examples=60)
@given(st.data())
def test_the_second_implementation_agrees(tmp_path_factory, data) -> None:
    tmp_path = tmp_path_factory.mktemp("set")
    truth = {frame: data.draw(SMALL) for frame in FRAMES}
    found = {frame: data.draw(SMALL) for frame in FRAMES}
    listed = {k: FRAMES[data.draw(st.integers(0, 3)) :] for k in IDS}
    seen = {k for k in IDS if data.draw(st.booleans())}
    categories = {k: "dog" if k in seen else "spider" for k in IDS}
    root = meta(tmp_path / "root", v={str(k): (categories[k], frames) for k, frames in listed.items()})
    for frame in FRAMES:
        save(root / f"Annotations/v/{frame}.png", truth[frame])
        save(tmp_path / f"pred/v/{frame}.png", found[frame])
    if all(len(frames) == 1 for frames in listed.values()):
        with pytest.raises(InputError, match="lists each object in one frame, which is given"):
            evaluate_youtube_vos(root, tmp_path / "pred", workers=1)
        return
    expected = slow_score(truth, found, listed, seen)
    overall = evaluate_youtube_vos(root, tmp_path / "pred", workers=1).overall
    assert overall is None if expected is None else overall == pytest.approx(expected, abs=1e-6)


def test_results_that_are_refused(root, tmp_path) -> None:
    pred = tmp_path / "pred/park"
    with pytest.raises(InputError, match="pred/park: no results of this sequence"):
        evaluate_youtube_vos(root, tmp_path / "pred", workers=1)
    for frame in FRAMES[1:3]:
        save(pred / f"{frame}.png", box((1, ONE)))
    with pytest.raises(InputError, match=r"park/00015.png: no such file, 1 of 3 results of park are missing"):
        evaluate_youtube_vos(root, tmp_path / "pred", workers=1)
    save(pred / "00015.png", box((2, ONE)))
    with pytest.raises(InputError, match=r"00015.png: id 2, which is no object of park by meta.json; write 0 .* 1, 7"):
        evaluate_youtube_vos(root, tmp_path / "pred", workers=1)
    save(pred / "00015.png", box((1, ONE))[:, 1:])
    with pytest.raises(InputError, match=r"00015.png: 79x60 pixels where 80x60 are wanted"):
        evaluate_youtube_vos(root, tmp_path / "pred", workers=1)
    save(pred / "00015.png", box((1, ONE)))
    save(pred / "15.png", box((1, ONE)))
    with pytest.raises(InputError, match=r"park: 00015.png and 15.png are two masks of one frame"):
        evaluate_youtube_vos(root, tmp_path / "pred", workers=1)


def test_sets_that_are_refused(root, tmp_path) -> None:
    with pytest.raises(
        InputError, match=r"nowhere/meta.json: no such file; give a folder in the layout of YouTube-VOS"
    ):
        videos(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"meta.json: lists no video zoo"):
        videos(root, names=["zoo"])
    (root / "Annotations/park/00010.png").unlink()
    with pytest.raises(InputError, match=r"park/00010.png: no such file, 1 of 2 annotations to score against"):
        is_annotated(videos(root))
    (root / "Annotations/park/00015.png").unlink()
    assert not is_annotated(videos(root))
    with pytest.raises(InputError, match="holds the given annotations alone"):
        evaluate_youtube_vos(root, tmp_path, workers=1)
    save(root / "Annotations/park/00005.png", box((1, ONE)))
    with pytest.raises(InputError, match=r"00005.png: no pixel of object 7, which begins here by meta.json"):
        given_ids(videos(root)[0])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "is no readable JSON"),
        ("[]", "it is not a table"),
        ('{"videos": 3}', "videos is not a table"),
        ('{"videos": {}}', "lists no video"),
        ('{"videos": {"../a": {}}}', r"videos.../a is not the name of a folder"),
        ('{"videos": {"a": {"objects": {}}}}', r"videos.a.objects is not a table of objects"),
        ('{"videos": {"a": {"objects": {"0": {}}}}}', r"videos.a.objects.0 is not an id from 1 on"),
        ('{"videos": {"a": {"objects": {"1": {}}}}}', r"objects.1.category is not the name of a category"),
        (
            '{"videos": {"a": {"objects": {"1": {"category": "x", "frames": ["a/b"]}}}}}',
            "1.frames is not a list of names",
        ),
        (
            '{"videos": {"a": {"objects": {"1": {"category": "x", "frames": ["0"]}, '
            '"01": {"category": "x", "frames": ["0"]}}}}}',
            "a table of objects with an id each",
        ),
    ],
)
def test_odd_meta_json_is_told_by_place(tmp_path, text, told) -> None:
    (tmp_path / "meta.json").write_text(text)
    with pytest.raises(InputError, match=told):
        videos(tmp_path)


def test_frames_are_in_the_order_of_frames(tmp_path) -> None:
    root = meta(tmp_path, v={"1": ("dog", ["10", "9", "8", "11"])})
    assert videos(root)[0].frames == ("8", "9", "10", "11")
    assert videos(root)[0].given == {"8": (1,)}


def test_the_seen_categories(tmp_path) -> None:
    assert len(SEEN) == 65
    names = tmp_path / "seen.txt"
    names.write_text("dog\n\n cat \n")
    assert read_seen(names) == {"dog", "cat"}
    assert read_seen(meta(tmp_path / "train", v={"1": ("ant", ["0"]), "2": ("bee", ["0"])}) / "meta.json") == {
        "ant",
        "bee",
    }


@pytest.fixture
def filmed(tmp_path: Path) -> Path:
    """Eight frames of the scene; the blue square, id 9, begins in frame 4. Every second frame is listed."""
    listed = [f"{k:05d}" for k in range(0, 8, 2)]
    root = meta(tmp_path / "filmed", squares={"1": ("dog", listed), "9": ("spider", listed[2:])})
    for k in range(8):
        picture, ids = scene(k)
        save(root / f"JPEGImages/squares/{k:05d}.png", picture)
        if k in (0, 4):  # a given mask may show what began earlier, or has not begun
            save(root / f"Annotations/squares/{k:05d}.png", np.where(ids == 2, 9, ids).astype(np.uint8))
    return root


def test_objects_that_begin_in_the_middle_are_labelled(filmed, tmp_path) -> None:
    from tests.toys import model

    out = tmp_path / "out"
    done = list(sequences.label_videos(tasks(filmed, out), out, model, "toys", workers=1))
    assert [d.frames for d in done] == [4]
    written = sorted((out / "Annotations/squares").iterdir())
    assert [path.name for path in written] == ["00000.png", "00002.png", "00004.png", "00006.png"]
    assert check_submission(filmed, out) == 4
    for k, path in zip(range(0, 8, 2), written, strict=True):
        ids, truth = np.array(Image.open(path)), scene(k)[1]
        assert set(np.unique(ids)) == ({0, 1} if k < 4 else {0, 1, 9})
        for mine, theirs in ((1, 1), (9, 2)):
            if mine == 1 or k >= 4:
                m, g = ids == mine, truth == theirs
                assert (m & g).sum() / (m | g).sum() > 0.8, (k, mine)


def test_a_submission_is_checked(filmed, tmp_path) -> None:
    pred = tmp_path / "pred/Annotations/squares"
    for k in range(0, 6, 2):
        save(pred / f"{k:05d}.png", np.zeros((48, 64), np.uint8))
    with pytest.raises(InputError, match=r"00006.png: no such file, 1 of 4 results of squares are missing"):
        check_submission(filmed, tmp_path / "pred")
    save(pred / "00006.png", np.full((48, 64), 2, np.uint8))
    with pytest.raises(InputError, match=r"00006.png: id 2, which is no object of squares"):
        check_submission(filmed, tmp_path / "pred")


def test_what_cannot_be_labelled_is_refused_first(filmed, tmp_path) -> None:
    (filmed / "JPEGImages/squares/00006.png").unlink()
    with pytest.raises(InputError, match=r"squares: no frame 00006, which meta.json lists, 1 of 4 are missing"):
        tasks(filmed, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_page_shows_the_videos_without_images_too(root: Path, tmp_path: Path) -> None:
    for frame in FRAMES[1:]:
        save(tmp_path / f"pred/Annotations/park/{frame}.png", box((1, ONE), (7, OTHER)))
    page = tmp_path / "page.html"
    command = ["evaluate", "youtube-vos", "--root", str(root), "--pred", str(tmp_path / "pred"), "--page", str(page)]
    assert CliRunner().invoke(app, [*command, "--workers", "1"], catch_exceptions=False).exit_code == 0
    text = page.read_text()
    assert "<h1>root: scores by the protocol of YouTube-VOS</h1>" in text
    assert "<h3>park: 100.0</h3>" in text and text.count("<img") == 3
