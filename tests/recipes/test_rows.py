"""The commands of docs/recipes.md, and the check that each of them learns."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import recipes
from vcorr import rng
from vcorr.model import color
from vcorr.training import recipe
from vcorr.training import step as learner
from vcorr.training.clips.cut import Clips
from vcorr.training.clips.dataset import scan
from vcorr.training.losses import bank

ROWS = recipes.rows(recipes.PAGE.read_text())
TINY = ["net.widths=8,8,8,8", "net.features=8", *(f"{clips}.size=24" for clips in ("clips", "memory_clips"))]


@pytest.fixture
def films(tmp_path):
    folder = tmp_path / "films" / "a"
    folder.mkdir(parents=True)
    world = np.random.default_rng(0).integers(0, 256, (60, 90, 3)).astype(np.uint8)
    for k in range(16):
        Image.fromarray(world[k : k + 40, 2 * k : 2 * k + 50]).save(folder / f"{k:03d}.png")
    return folder.parent


def test_rows_are_read_from_the_page():
    names = [name for row in ROWS for name in row.names]
    assert len(names) == len(set(names))
    assert {"corrflow", "corrflow-no-cycle", "mast", "mast-memory"} <= set(names)
    text = (
        "| a | `vcorr train mast x=1 'y=(1, 2)' --data HERE` | 3 |\n| b | `vcorr propagate` | 2 |\ntext `vcorr train c`"
    )
    assert recipes.rows(text) == [recipes.Row(("a",), "mast", ("x=1", "y=(1, 2)"))]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.names[0])
def test_every_row_is_a_configuration_that_its_overrides_make(row):
    plain, config = recipe.load(row.recipe).config, recipe.load(row.recipe, list(row.overrides)).config
    changed = {k for k, v in recipe.flatten(config).items() if v != recipe.flatten(plain)[k]}
    assert changed == {override.partition("=")[0] for override in row.overrides}


def test_rows_that_train_alike_are_trained_once_and_no_other_is_left_out():
    every = recipes.every_row()
    names = [name for row in every for name in row.names]
    assert sorted(names) == sorted(
        {name for row in ROWS for name in row.names} | (set(recipe.shipped()) - {row.recipe for row in ROWS})
    )
    together = {frozenset(row.names) for row in every}
    assert {"mast-pairwise", "mast-memory", "mast-scaled"} in together  # they read otherwise
    assert {"mast-scale-1"} in together and {"corrflow-gray"} in together and {"corrflow-no-cycle"} in together


def test_a_small_row_keeps_its_own_overrides():
    config = recipes.small(
        recipes.Row(("x",), "corrflow", ("matching.radius=none", "cycle=0")), 7, ["clips.size=32"]
    ).config
    assert (config.matching.radius, config.cycle, config.triplets.steps, config.clips.size) == (None, 0, 7, 32)
    assert (config.triplets.batch, config.net.features) == (4, 32)
    config = recipes.small(recipes.Row(("x",), "mast", ("pairs.steps=98_000", "pairs.batch=3")), 7, []).config
    assert (config.pairs.steps, config.pairs.batch) == (7, 3)
    config = recipes.small(recipes.Row(("x",), "mast_memory", ("memory.steps=0",)), 7, []).config
    assert (config.pairs.steps, config.memory.steps) == (7, 0)


@pytest.mark.slow
def test_learning_and_shares_of_a_recipe_of_two_stages(films, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    options = ["--rows", "mast", "--steps", "3", "--share-steps", "2", "--share-batch", "2", "--set", *TINY]
    monkeypatch.setattr("sys.argv", ["recipes.py", str(films), *options, "--out", str(out)])
    with pytest.raises(SystemExit) as ended:
        recipes.main()
    document = json.loads((out / "recipes.json").read_text())
    learned, shares = document["learning"], document["shares"]
    assert [(line["stage"], len(line["losses"])) for line in learned] == [("pairs", 3), ("memory", 3)]
    for line in learned:
        assert (line["first"], line["last"]) == (line["losses"][0], line["losses"][-1])
        assert line["falls"] == (line["last"] < line["first"] and line["after"] < line["before"])
        assert line["lower"] == (line["after"] < line["before"]) and line["batches"] == 1
    assert ended.value.code == (not all(line["falls"] for line in learned))
    assert [line["stage"] for line in shares] == ["pairs", "memory"]
    for line in shares:
        parts = [line[part] for part in ("encoder", "operators", "data", "rest")]
        assert sum(parts) == pytest.approx(1) and all(0 < part < 1 for part in parts)
    assert "mast, mast-oxuva" in capsys.readouterr().out

    with pytest.raises(SystemExit) as refused:
        recipes.main()
    assert refused.value.code == 2 and "is not empty" in capsys.readouterr().err


def test_new_clips_are_tried_with_the_weights_of_both_ends_of_a_stage(films):
    """The same clips, that come after those of the training; the same bank; other weights."""
    experiment = recipes.small(recipes.Row(("x",), "liir", ()), 4, [*TINY, "bank.frames=9"])
    stage, kept = experiment.recipe.stages[1], {}
    state = stage.enter(experiment.recipe.init(rng.generator(0, "init")))
    clips = Clips(scan(films), stage.clips, 0)
    learn = learner.Learner(recipes.keeping(stage, kept), state, {}, seed=0)
    for step in range(2):
        pictures, videos = clips.batch(range(4 * step, 4 * step + 4))
        learn.step(step, [recipe.Batch(color.from_uint8(pictures), tuple(range(4 * step, 4 * step + 4)), videos)])
    first, last = kept["full"]
    assert all(torch.equal(v, state.params[k]) for k, v in first.params.items())
    assert all(v is learn.state.params[k] for k, v in last.params.items())
    asked = []
    clips.batch = lambda samples: (asked.append(samples), Clips.batch(clips, samples))[1]
    before, after = recipes.on_new_clips(stage, [first, last], clips, 2)
    assert asked == [range(16, 20), range(20, 24)] and not set(before) & set(after)
    same, again = recipes.on_new_clips(stage, [last, last], clips, 2)
    assert same == again == after


def test_a_bank_is_full_where_shares_are_taken():
    built = recipe.load("liir", ["net.widths=8,8,8,8", "net.features=8", "bank.frames=9"]).recipe
    state = built.init(rng.generator(0, "init"))
    for stage, filled in zip(built.stages, map(recipes.with_full_bank, built.stages), strict=True):
        plain, full = stage.enter(state).extra, filled.enter(state).extra
        assert {k: (v.shape, v.dtype) for k, v in full.items()} == {k: (v.shape, v.dtype) for k, v in plain.items()}
        assert not full or len(bank.read(full)[0]) == 9 * 4


@pytest.mark.slow
def test_a_row_that_is_not_there_is_refused(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("sys.argv", ["recipes.py", str(tmp_path), "--rows", "nothing"])
    with pytest.raises(SystemExit) as ended:
        recipes.main()
    assert ended.value.code == 2 and "no row nothing; there are corrflow" in capsys.readouterr().err
