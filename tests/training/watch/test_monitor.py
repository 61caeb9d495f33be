"""What is seen of a training from the side: it is right, it is bounded, and it changes nothing."""

from __future__ import annotations

import base64
import io
import json
import math
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from tests.toys import save_mask, scene
from tests.training.runs import EVERY_STEP, Run, assert_same_run, metrics, tensors
from tests.training.test_every_recipe import tiny
from vcorr import rng
from vcorr.matching import affinity
from vcorr.matching.affinity import Views
from vcorr.matching.settings import Matching
from vcorr.training import recipe
from vcorr.training.loop import Stopped, TrainOptions
from vcorr.training.recipe import Batch
from vcorr.training.watch import monitor, pictures, report, validation
from vcorr.training.watch.monitor import Monitor

WITHOUT_VIEWS = """
from __future__ import annotations
import dataclasses
from dataclasses import dataclass
from vcorr.recipes import mast_cpu

@dataclass(frozen=True)
class Config(mast_cpu.Config):
    broken: bool = False

def build(cfg):
    base = mast_cpu.build(cfg)
    (pairs,) = base.stages

    def loss(state, batch, rng, progress):
        out = pairs.loss(state, batch, rng, progress)
        views = dataclasses.replace(out.views, frame=99) if cfg.broken else None
        return dataclasses.replace(out, views=views, metrics={"<b>own</b>": 1.0})

    return dataclasses.replace(base, stages=(dataclasses.replace(pairs, loss=loss),))
"""

VOID = {"meta", "img", "br", "input", "link", "hr", "circle", "path"}


class Page(HTMLParser):
    """A page taken apart: fails on tags that do not match, keeps pictures, text and every address."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.pictures: list[Image.Image] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            assert not name.startswith("on")
            if name == "src":
                kind, data = value.split(",", 1)
                assert kind == "data:image/jpeg;base64"
                picture = Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
                picture.load()
                self.pictures.append(picture)
            elif name in ("href", "srcset", "action", "poster", "data") or "url(" in (value or ""):
                self.addresses.append(value)

    def handle_startendtag(self, tag, attrs):
        assert tag in VOID
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def page(out) -> Page:
    text = (out / report.NAME).read_text()
    assert "http:" not in text and "https:" not in text and "url(" not in text and "@import" not in text
    found = Page(text)
    assert found.addresses == [] and not {"script", "link", "iframe", "object", "base"} & set(found.tags)
    return found


@pytest.fixture
def davis(tmp_path):
    """Two labelled sequences."""
    root = tmp_path / "DAVIS"
    for name in ("one", "<two>"):
        images, masks = root / "JPEGImages/480p" / name, root / "Annotations/480p" / name
        images.mkdir(parents=True)
        masks.mkdir(parents=True)
        for k in range(4):
            picture, ids = scene(k)
            Image.fromarray(picture).save(images / f"{k:05d}.png")
            save_mask(masks / f"{k:05d}.png", ids)
    return root


def test_a_run_leaves_a_page_that_stands_alone(unbroken) -> None:
    found = page(unbroken)
    assert "12 of 12 steps" in found.text and "finished" in found.text
    assert len(found.pictures) == 4 + 2  # reference, query, rebuilt, error; the cells, and where they look
    assert all(p.size == (pictures.SIDE, pictures.SIDE) for p in found.pictures)
    for title in ("Loss", "Softmax", "Learning rate", "Gradient norm", "Speed", "Waiting for data", "net.widths"):
        assert title in found.text
    assert found.tags.count("svg") == 6
    assert torch.__version__ in found.text and "2 videos, 24 frames" in found.text


def test_the_log_says_how_sharp_the_softmax_is(unbroken) -> None:
    lines = [json.loads(line) for line in (unbroken / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        assert 1 / 25 <= line["weight_max"] <= 1 and 0 <= line["entropy"] <= 1


def test_labelled_clips_change_no_bit_and_are_shown(films, tmp_path, unbroken, davis) -> None:
    run = Run(films, tmp_path / "run")
    run(options=TrainOptions(log_every=1, save_every=0, validation=davis))
    got, wanted = tensors(tmp_path / "run"), tensors(unbroken)
    assert got[1] == wanted[1]
    assert [k for k in wanted[0] if not torch.equal(got[0][k], wanted[0][k])] == []
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    scored = [line for line in lines if "validation" in line]
    # The first state and the last; between them the share of time forbids it.
    assert [line["step"] for line in scored] == [1, 12] and all(0 <= line["validation"] <= 1 for line in scored)
    assert run.heard("validation J&F") and not run.heard("goes on without")
    found = page(tmp_path / "run")
    assert len(found.pictures) == 4 + 2 + 4 and "<two>" in found.text and "Validation" in found.text
    again = Run(films, tmp_path / "run")  # the log is still that of this run
    again(options=EVERY_STEP)


def test_a_stopped_run_says_so_and_a_resumed_one_shows_all(films, tmp_path, unbroken) -> None:
    out = tmp_path / "run"
    with pytest.raises(Stopped):
        Run(films, out)(stop_at=("pairs", 5))
    found = page(out)
    assert "5 of 12 steps; the same command goes on" in found.text and "refresh" not in (out / report.NAME).read_text()
    Run(films, out)()
    assert "12 of 12 steps" in page(out).text
    assert_same_run(out, unbroken)


def test_a_running_page_reloads_itself_and_says_how_long(films, tmp_path, monkeypatch) -> None:
    seen = []
    write = report.write

    def kept(folder, now):
        write(folder, now)
        seen.append((folder.out / report.NAME).read_text())

    monkeypatch.setattr(report, "write", kept)
    Run(films, tmp_path / "run")()
    assert 2 <= len(seen) < 12  # the first state, the last, and in between for a twentieth of the time at most
    assert 'http-equiv="refresh"' in seen[0] and "1 of 12 steps, about" in Page(seen[0]).text
    assert 'http-equiv="refresh"' not in seen[-1]


@pytest.mark.parametrize("broken", [False, True])
def test_a_recipe_without_views_trains_and_is_reported(films, tmp_path, unbroken, broken) -> None:
    path = tmp_path / "plain.py"
    path.write_text(WITHOUT_VIEWS)
    run = Run(films, tmp_path / "run", f"broken={broken}", name=str(path))
    run()
    got, wanted = tensors(tmp_path / "run")[0], tensors(unbroken)[0]
    assert all(torch.equal(got[k], v) for k, v in wanted.items() if k != "weights")
    assert sum("(Out.views) cannot be shown (IndexError" in line for line in run.said) == broken
    found = page(tmp_path / "run")
    assert "hands over no views" in found.text and found.pictures == [] and "<b>own</b>" in found.text
    assert ("weight_max" in (tmp_path / "run/metrics.jsonl").read_text()) == broken


def test_hostile_logs_are_drawn(films, tmp_path, stopped) -> None:
    log = stopped / "metrics.jsonl"
    lines = [{"stage": "pairs", "step": k, "loss": 10.0 ** (k * 20), "</svg><script>": k} for k in range(1, 5)]
    log.write_text("".join(json.dumps(x) + "\n" for x in lines) + '{"stage": "pairs", "step": 5, "loss": NaN}\n')
    Run(films, stopped)()
    found = page(stopped)
    assert "</svg><script>" in found.text and "12 of 12 steps" in found.text


def test_whatever_goes_wrong_is_told_once_and_harms_nothing(films, tmp_path, unbroken, davis, monkeypatch) -> None:
    def fails(*args, **named):
        raise RuntimeError("no\nluck")

    monkeypatch.setattr(report, "write", fails)
    monkeypatch.setattr(validation.ValidationClips, "score", fails)
    monkeypatch.setattr(monitor.affinity, "saturation", fails)
    monkeypatch.setattr(monitor, "SHARE", 1.0)
    run = Run(films, tmp_path / "run")
    run(options=TrainOptions(log_every=1, save_every=0, validation=davis))
    assert_same_run(tmp_path / "run", unbroken)
    assert sum("(RuntimeError: no luck); the training goes on without" in line for line in run.said) == 3


def test_a_validation_is_given_up_when_the_run_is_to_stop(films, tmp_path, davis, monkeypatch) -> None:
    asked = []
    monkeypatch.setattr(validation.ValidationClips, "score", lambda self, *args, cancelled: asked.append(cancelled()))
    with pytest.raises(Stopped):
        Run(films, tmp_path / "run")(stop_at=("pairs", 1), options=TrainOptions(1, 0, davis))
    assert asked == []  # stopped before it was due
    assert "validation" not in (tmp_path / "run/metrics.jsonl").read_text()
    assert metrics(tmp_path / "run")[-1]["step"] == 1


class Folder:
    """What a monitor needs of a run's folder to listen."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.say = self.said.append

    def offset(self, stage: str) -> int:
        return 0


def test_long_saturation_is_told_and_told_again_after_a_pause() -> None:
    folder = Folder()
    watch = Monitor(folder, None, lambda: False)
    frame, rgb = torch.eye(16).view(1, 4, 4, 16), torch.rand(1, 2, 3, 16, 16)

    def see(scale: float, times: int) -> None:
        for step in range(times):
            watch.logged("pairs", step, Views(frame, [frame], Matching(1, scale)), rgb)

    see(1e3, report.LONG - 1)
    see(1.0, 1)
    assert folder.said == []
    see(1e3, 3 * report.LONG)
    assert len(folder.said) == 1 and "the softmax is saturated" in folder.said[0] and "pairs.lr" in folder.said[0]
    see(1.0, 1)
    see(1e3, report.LONG)
    assert len(folder.said) == 2


def test_what_is_kept_of_a_batch_keeps_nothing_else_alive() -> None:
    watch = Monitor(Folder(), None, lambda: False)
    frame = torch.zeros(8, 4, 4, 16)
    watch.logged("pairs", 1, Views(frame, [frame], Matching(1)), torch.zeros(8, 2, 3, 16, 16))
    kept = [watch.look.rgb, watch.look.views.query, *watch.look.views.keys]
    assert all(t.untyped_storage().nbytes() == t.numel() * 4 and len(t) == monitor.CLIPS for t in kept)


def test_features_that_are_not_finite_are_drawn_as_nothing() -> None:
    frame = torch.full((1, 4, 4, 8), math.nan)
    found = pictures.scene(pictures.Look(Views(frame, [frame], Matching(1)), torch.rand(1, 2, 3, 16, 16), 3))
    assert found.rebuilt.max() == 0 and found.difference > 0


def test_a_scene_is_what_the_affinity_copies() -> None:
    """Features that name each cell, a reference shifted by two cells: the affinity finds them, wherever it has them."""
    size, stride = 8, 4
    names = torch.eye((size + 2) ** 2).view(size + 2, size + 2, -1)
    colours = torch.rand(size + 2, size + 2, 3, generator=torch.Generator().manual_seed(0))
    blocks = colours.repeat_interleave(stride, 0).repeat_interleave(stride, 1).permute(2, 0, 1)
    query, key = names[:-2, :-2], names[2:, :-2]
    rgb = torch.stack([blocks[:, 2 * stride :, : -2 * stride], blocks[:, : -2 * stride, : -2 * stride]])[None]
    found = pictures.scene(pictures.Look(Views(query[None], [key[None]], Matching(3, 1e3)), rgb, 0))
    assert found.shares == ((pytest.approx(1.0),),) * 4 and found.rebuilt.shape == (pictures.SIDE, pictures.SIDE, 3)
    error = np.asarray(found.error).astype(int).sum(-1)
    low, high = error[-pictures.SIDE // 2 :].mean(), error[: pictures.SIDE // 8].mean()
    assert low < high  # the two rows above lie outside the reference
    assert found.difference < found.in_place


@pytest.mark.parametrize("name", sorted(recipe.shipped()))
def test_every_shipped_recipe_shows_what_it_compares(name) -> None:
    built = recipe.load(name, tiny(name)).recipe
    state = built.init(rng.generator(0, "init"))
    for stage in built.stages:
        state = stage.enter(state)
        count, size = stage.clips.length, stage.clips.size
        batch = Batch(torch.rand(2, count, 3, size, size, generator=rng.generator(0, "clips")), (0, 1), (0, 1))
        views = stage.loss(state, batch, rng.generator(0, "loss"), 0.5).views
        assert views is not None and max(views.frames) < count - 1 and views.frame % count == count - 1
        assert not {"nan", "inf"} & set(map(str, affinity.saturation(views.first(2)).values()))
        found = pictures.scene(pictures.Look(views.first(1), batch.rgb, 1))
        assert len(found.looks) == len(views.frames) and found.query.shape == found.rebuilt.shape
