"""Where to look: which stretches, the page, the line at the end, and scene cuts."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from tests.toys import save_mask, scene
from vcorr.propagation.confidence import ACROSS, SIGNALS, confidence, estimate
from vcorr.propagation.review import PICTURES, STRETCHES, SURE, Look, page, stretches, told
from vcorr.propagation.run import Request, propagate_to


@given(
    arrays(np.float32, st.tuples(st.integers(1, 60), st.integers(1, 3)), elements=st.floats(0, 1, width=32)),
    st.integers(0, 99),
    st.sets(st.integers(0, 59)),
)
def test_stretches_are_apart_and_free_of_labelled_frames(sure: np.ndarray, first: int, given_: set[int]) -> None:
    labelled = sorted(first + k for k in given_ if k < len(sure))
    sure[[k - first for k in labelled]] = 1
    found = stretches(sure, first, labelled)
    frames = [k for s in found for k in range(s.first, s.last + 1)]
    assert len(frames) == len(set(frames)) and not set(frames) & set(labelled) and len(found) <= STRETCHES
    for s in found:
        assert first <= s.first <= s.worst <= s.last < first + len(sure)
        assert s.confidence == pytest.approx(sure[s.worst - first].min()) == sure[s.worst - first, s.object]


def test_a_stretch_lies_within_a_scene() -> None:
    found = stretches(np.full((40, 1), 0.3), 0, cuts=[15])
    assert all(s.last < 15 or s.first >= 15 for s in found)
    assert any(s.first >= 15 for s in found) and any(s.last < 15 for s in found)


def test_one_bad_frame_makes_no_stretch_and_a_bad_row_does() -> None:
    sure = np.full((100, 2), 0.95)
    assert stretches(sure, 0) == []
    sure[20] = 0.3
    assert stretches(sure, 0) == []
    sure[60:70, 1] = 0.2
    sure[64, 1] = 0.1
    (one,) = stretches(sure, 1000)
    assert (one.worst, one.object, one.confidence) == (1064, 1, 0.1) and one.first >= 1058 and one.last <= 1072
    line = told([one], ["cat", "dog"], [1050])
    assert line.startswith("look first at frames 10") and "(dog, confidence 0.10): label frame 1064 next" in line
    assert line.endswith("; scene cuts at 1050")
    assert told([], ["cat"], []) == f"no frame stands out: all have a confidence of {SURE} or more"


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_the_page_needs_nothing_else_and_stays_small_however_long_the_video() -> None:
    rng = np.random.default_rng(0)
    walk = np.cumsum(rng.normal(0, 0.02, (20_000, 30)), 0)
    sure = (np.sin(walk) + 1) / 2
    drawn: list[int] = []

    def picture(k: int) -> np.ndarray:
        drawn.append(k)
        return np.full((480, 854, 3), k % 255, np.uint8)

    names = [f"<b>{i}</b>" for i in range(30)]
    look = Look("a&b.mp4", names, np.zeros((30, 3), np.uint8), sure, 0, [0, 9], [500], lambda k: [f"label '{k}' & go"])
    text = page(look, picture)
    assert 0 < len(drawn) <= STRETCHES * PICTURES and len(text) < 2_000_000
    tags = Tags(text).found
    assert not {"script", "link", "iframe", "b"} & {tag for tag, _ in tags}
    sources = [attrs["src"] for _, attrs in tags if "src" in attrs]
    assert len(sources) == len(drawn) and all(s and s.startswith("data:image/jpeg;base64,") for s in sources)
    assert "://" not in text and text.endswith("</html>\n") and "label &#x27;" in text


def test_confidence_falls_behind_a_cut_and_is_1_where_it_was_given() -> None:
    found = np.full((10, 2, len(SIGNALS)), 0.8, np.float32)
    plain = float(estimate(found)[0, 0])
    both = np.array([True, True])
    sure = confidence(found, range(10, 20), {12: both}, [15])
    assert sure[2].tolist() == [1, 1]
    np.testing.assert_allclose(sure[:5, 0], [plain, plain, 1, plain, plain])
    np.testing.assert_allclose(sure[5:], ACROSS * plain)
    sure = confidence(found, range(10, 20), {10: both, 18: np.array([True, False])}, [14])
    np.testing.assert_allclose(sure[2, 0], plain * (6 / 8 + 2 / 8 * ACROSS))
    np.testing.assert_allclose(sure[6, 0], plain * (2 / 8 * ACROSS + 6 / 8))
    np.testing.assert_allclose(sure[9], [plain, 1])  # the only labelled frame says that the second is not there


@given(st.lists(st.floats(0, 1, width=32), min_size=2, max_size=2), st.sampled_from(SIGNALS[1:]))
def test_the_estimate_lies_in_0_to_1_and_rises_with_each_signal(values: list[float], signal: str) -> None:
    found = np.full((2, len(SIGNALS)), 0.5, np.float32)
    found[:, SIGNALS.index(signal)] = sorted(values)
    low, high = estimate(found)
    assert 0 <= low <= high <= 1


def test_a_run_says_where_to_look_and_where_scenes_begin(
    request_for: Callable[..., Request], frames: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    other = rng.integers(0, 255, (6, 8, 3)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
    for k in range(8, 14):
        Image.fromarray(np.roll(other, k, 1)).save(frames / f"{k:05d}.png")
    request = request_for()
    summary = propagate_to(request)
    assert json.loads((request.out / "manifest.json").read_text())["cuts"] == [8]
    assert summary.look.endswith("scene cuts at 8")
    rows = list(csv.DictReader((request.out / "confidence.csv").read_text().splitlines()))
    assert all(float(row["confidence"]) <= ACROSS for row in rows if int(row["frame"]) >= 8)
    text = (request.out / "review.html").read_text()
    assert "scene cut: 8" in text and "This scene has no labelled frame." in text
    assert f"vcorr frame {request.video} " in text and f"--weights {request.weights} --update --at " in text
    assert "complete already" in _said(request) and propagate_to(request).look == summary.look
    for name in ("review.html", "overlay.mp4"):
        (request.out / name).unlink()
        propagate_to(request)
        assert (request.out / "review.html").read_text() == text
    (request.out / "review.html").write_text(text[:-9])
    propagate_to(request)
    assert (request.out / "review.html").read_text() == text

    def stop(done: int, total: int) -> None:
        if done == 10:
            raise KeyboardInterrupt

    shutil.rmtree(request.out)
    with pytest.raises(KeyboardInterrupt):
        propagate_to(request, progress=stop)
    propagate_to(request)
    assert (request.out / "review.html").read_text() == text
    later = save_mask(tmp_path / "later.png", scene(0)[1])
    propagate_to(request_for(at={8: later}, update=True))
    assert "This scene has no labelled frame." not in (request.out / "review.html").read_text()


def _said(request: Request) -> str:
    lines: list[str] = []
    propagate_to(request, say=lines.append)
    return "\n".join(lines)


def test_keypoints_are_reviewed_by_their_own_confidence(request_for: Callable[..., Request], tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_text("frame,point,x,y\n0,nose,11.5,15.5\n0,tail,47.5,35.5\n")
    request = request_for(labels=tmp_path / "points.csv")
    propagate_to(request)
    text = (request.out / "review.html").read_text()
    assert ">nose " in text and ">tail " in text and not (request.out / "confidence.csv").exists()
