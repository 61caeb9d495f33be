"""Recipes from files, and overrides of their configuration."""

from __future__ import annotations

import dataclasses
import functools
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vcorr.config import flatten, from_json, override, to_json
from vcorr.errors import InputError, UsageError
from vcorr.model.weights import load_weights
from vcorr.training import recipe
from vcorr.training.clips.cut import ClipConfig
from vcorr.training.recipe import Batch, Schedule

SMALL = {"net.widths": "4,4,8,8", "net.features": "8", "radius": "2", "batch": "2", "size": "32"}


def small(name):
    """A shipped recipe at a size for tests: each key that it has, by its whole name or its last part."""
    keys = recipe.flatten(recipe.load(name).config)
    pairs = [(key, SMALL.get(key) or SMALL.get(key.rpartition(".")[2])) for key in keys]
    return recipe.load(name, [f"{key}={value}" for key, value in pairs if value])


@dataclass(frozen=True)
class Inner:
    steps: int = 3
    rates: tuple[float, ...] = (0.5,)
    mode: Literal["fast", "slow"] = "fast"


@dataclass(frozen=True)
class Outer:
    seed: int = 0
    inner: Inner = Inner()
    other: Inner = Inner(steps=7)
    flag: bool = False
    scale: float | None = None
    name: str = "x"
    names: tuple[str, ...] = ()
    pair: tuple[int, int] = (1, 2)
    boxes: tuple[tuple[int, int], ...] = ()
    maybe: tuple[int, ...] | None = None


# --- overrides ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pair", "key", "value"),
    [
        ("seed=10_000", "seed", 10_000),
        ("seed=1e4", "seed", 10_000),
        ("seed=-3", "seed", -3),
        ("inner.steps = 5", "inner.steps", 5),
        ("other.steps=5", "other.steps", 5),
        ("inner.rates=1,2.5", "inner.rates", (1.0, 2.5)),
        ("inner.rates=(1, 2.5)", "inner.rates", (1.0, 2.5)),
        ("inner.rates=[1,2.5,]", "inner.rates", (1.0, 2.5)),
        ("inner.rates=1", "inner.rates", (1.0,)),
        ("inner.rates=", "inner.rates", ()),
        ("inner.rates=()", "inner.rates", ()),
        ("inner.mode=slow", "inner.mode", "slow"),
        ("flag=true", "flag", True),
        ("flag=True", "flag", True),
        ("scale=0.125", "scale", 0.125),
        ("scale=1", "scale", 1.0),
        ("scale=None", "scale", None),
        ("scale=null", "scale", None),
        ("name=a=b c", "name", "a=b c"),
        ("name=12", "name", "12"),
        ("name=true", "name", "true"),
        ("names=a,b", "names", ("a", "b")),
        ("names=a", "names", ("a",)),
        ("pair=3,4", "pair", (3, 4)),
        ("boxes=(1,2),(3,4)", "boxes", ((1, 2), (3, 4))),
        ("maybe=1,2", "maybe", (1, 2)),
        ("maybe=none", "maybe", None),
    ],
)
def test_the_annotation_parses_the_value(pair, key, value):
    start = Outer(scale=9.0, maybe=(9,))
    changed = override(start, [pair])
    assert flatten(changed)[key] == value and type(flatten(changed)[key]) is type(value)
    assert {k for k, v in flatten(changed).items() if v != flatten(start)[k]} <= {key}


def test_later_overrides_win_and_the_config_given_stays():
    config = Outer()
    assert override(config, ["seed=1", "inner.steps=4", "seed=2"]) == Outer(seed=2, inner=Inner(steps=4))
    assert config == Outer()


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("inner.stps=3", "inner.stps: no such key; did you mean inner.steps?"),
        ("steps=3", "steps: no such key; did you mean inner.steps or other.steps?"),
        ("sede=3", "did you mean seed?"),
        ("qqqq=3", "keys: seed, inner.steps, inner.rates"),
        ("inner=3", "inner: is a group of keys; set one of them: inner.steps, inner.rates, inner.mode"),
        ("seed.x=3", "seed has no fields of its own; write seed=VALUE"),
        ("seed", "is not KEY=VALUE"),
        ("seed=x", "seed=x: does not fit int"),
        ("seed=1.5", "does not fit int"),
        ("seed=", "does not fit int"),
        ("seed=True", "does not fit int"),
        ("flag=7", "does not fit bool"),
        ("scale=big", "does not fit float | None"),
        ("inner.mode=quick", r"does not fit Literal\['fast', 'slow'\]"),
        ("inner.rates=a,b", "does not fit tuple"),
        ("pair=1,2,3", "does not fit tuple"),
        ("=3", "no such key"),
        ("seed=" + "(" * 500, "does not fit int"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(pair, message):
    with pytest.raises(UsageError, match=message.replace("?", r"\?").replace("|", r"\|")) as refused:
        override(Outer(), [pair])
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "pair",
    [
        *("pairs.steps=-1", "pairs.batch=0", "pairs.lr=nan", "pairs.lr=0", "pairs.cooldown=1.5", "pairs.warmup=-1"),
        *("clips.size=0", "clips.gaps=0,1", "clips.gaps=()", "clips.weights=-1,1,1", "clips.cache=-1"),
        *("net.widths=0,1,1,1", "matching.radius=-1", "inference.references.short=0", "matching.scale=inf", "hide=3"),
    ],
)
def test_numbers_that_make_no_sense_are_refused_with_their_key(pair):
    with pytest.raises(UsageError, match=pair.partition("=")[0]):
        recipe.load("mast", [pair])


# --- JSON -----------------------------------------------------------------------------------------------------------

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
INNERS = st.builds(
    Inner, steps=st.integers(), rates=st.lists(NUMBERS).map(tuple), mode=st.sampled_from(["fast", "slow"])
)
OUTERS = st.builds(
    Outer,
    seed=st.integers(),
    inner=INNERS,
    other=INNERS,
    flag=st.booleans(),
    scale=st.none() | NUMBERS,
    name=st.text(st.characters(exclude_categories=["Cs"])),
    names=st.lists(st.text("abc")).map(tuple),
    pair=st.tuples(st.integers(), st.integers()),
    boxes=st.lists(st.tuples(st.integers(), st.integers())).map(tuple),
    maybe=st.none() | st.lists(st.integers()).map(tuple),
)


@given(OUTERS)
def test_json_brings_a_config_back(config):
    assert from_json(Outer, to_json(config)) == config


@pytest.mark.parametrize("name", sorted(recipe.shipped()))
def test_json_brings_a_shipped_config_back(name):
    config = recipe.load(name).config
    assert from_json(type(config), to_json(config)) == config


def test_json_fills_in_defaults():
    assert from_json(Outer, {"inner": {"steps": 4}}) == Outer(inner=Inner(steps=4))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"sed": 1}, "unknown fields sed of Outer"),
        ({"inner": {"steps": 1, "stps": 2}}, "unknown fields inner.stps"),
        ({"seed": "1"}, "seed: "),
        ({"seed": 1.5}, "seed: "),
        ({"flag": 1}, "flag: "),
        ({"inner": {"mode": "quick"}}, "inner.mode: "),
        ({"inner": 3}, "inner: "),
        ([], "object"),
        (None, "object"),
    ],
)
def test_json_of_anything_else_is_refused(data, message):
    with pytest.raises(ValueError, match=message) as refused:
        from_json(Outer, data)
    assert "\n" not in str(refused.value)


def test_json_is_held_to_the_rules_of_the_config():
    with pytest.raises(ValueError, match="steps must be at least 0 and batch 1"):
        from_json(Schedule, {"steps": 5, "batch": 0, "lr": 1.0})
    with pytest.raises(ValueError, match="lr"):
        from_json(Schedule, {"steps": 1, "batch": 1})


# --- files ----------------------------------------------------------------------------------------------------------

GOOD = """
from __future__ import annotations

from dataclasses import dataclass

from vcorr.recipes import mast
from vcorr.training.recipe import Schedule


@dataclass(frozen=True)
class Config(mast.Config):
    pairs: Schedule = Schedule(steps=5, batch=1, lr=1e-3)
    extra: tuple[int, ...] | None = None


build = mast.build
"""


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_file_with_postponed_annotations_loads(tmp_path):
    path = write(tmp_path / "mine.py", GOOD)
    experiment = recipe.load(str(path), ["extra=1,2", "pairs.steps=6"])
    assert (experiment.name, experiment.source) == ("mine", GOOD)
    assert experiment.config.extra == (1, 2)
    assert experiment.recipe.stages[0].schedule == Schedule(steps=6, batch=1, lr=1e-3)
    assert list(tmp_path.iterdir()) == [path]  # no compiled file beside it


def test_files_of_one_name_do_not_mix(tmp_path):
    loaded = []
    for k in range(2):
        (tmp_path / str(k)).mkdir()
        text = GOOD.replace("extra: tuple[int, ...] | None = None", f"Kind = int\n    extra: Kind = {k}")
        loaded.append(recipe.load(str(write(tmp_path / str(k) / "mine.py", text))))
    assert [override(e.config, ["seed=3"]).extra for e in loaded] == [0, 1]


def test_a_file_changed_in_between_is_read_again(tmp_path):
    path = write(tmp_path / "mine.py", GOOD)
    first = recipe.load(str(path))
    write(path, GOOD.replace("steps=5", "steps=7"))
    assert (first.config.pairs.steps, recipe.load(str(path)).config.pairs.steps) == (5, 7)


def test_a_variant_may_import_the_file_beside_it(tmp_path, monkeypatch):
    write(tmp_path / "base_of_the_test.py", GOOD)
    text = "from base_of_the_test import Config as Base, build\n\n\nclass Config(Base):\n    pass\n"
    before = list(sys.path)
    assert recipe.load(str(write(tmp_path / "variant.py", text))).config.pairs.steps == 5
    assert sys.path == before
    monkeypatch.delitem(sys.modules, "base_of_the_test")


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        pytest.param("x = 1\nif x\n", 2, "SyntaxError: expected ':'", id="syntax"),
        pytest.param("x = 1\n\ny = 1 / 0\n", 3, "ZeroDivisionError", id="body"),
        pytest.param("import no_such_module_at_all\n", 1, "ModuleNotFoundError", id="import"),
        pytest.param("def f():\n    raise ValueError('a\\nb')\nf()\n", 2, "ValueError: a b", id="deep"),
        pytest.param(GOOD.replace("5, batch", "-1, batch"), 12, "steps must be at least 0 and batch 1", id="numbers"),
        pytest.param("class Config:\n    def __init__(self):\n        1 / 0\nbuild = 1\n", 3, "ZeroDiv", id="config"),
        pytest.param(
            GOOD.replace("build = mast.build", "def build(cfg):\n    return cfg.nothing"),
            17,
            "AttributeError",
            id="build",
        ),
    ],
)
def test_a_failing_file_is_blamed_by_line(tmp_path, monkeypatch, text, line, message):
    write(tmp_path / "bad.py", text)
    monkeypatch.chdir(tmp_path)  # a relative path, as typed
    modules = set(sys.modules)
    with pytest.raises(InputError) as refused:
        recipe.load("bad.py")
    assert str(refused.value).startswith(f"bad.py:{line}: ")
    assert message in str(refused.value) and "\n" not in str(refused.value)
    assert {m for m in set(sys.modules) - modules if "bad" in m} == set() or "build" in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("", "defines no Config", id="empty"),
        pytest.param(GOOD.replace("build = mast.build", ""), "defines no build", id="no-build"),
        pytest.param("class Config:\n    pass\nbuild = 1\n", "no dataclass with a seed", id="no-dataclass"),
        pytest.param(GOOD.replace("mast.build", "lambda cfg: 3"), "returned int; return a vcorr", id="no-recipe"),
        pytest.param(GOOD.replace("mast.build", "3"), "TypeError", id="not-callable"),
        pytest.param("\0", "null bytes", id="null-bytes"),
        pytest.param(
            GOOD
            + "\nimport dataclasses\ndef build(cfg):\n    return dataclasses.replace(mast.build(cfg), stages=())\n",
            "has stages []",
            id="no-stages",
        ),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(tmp_path, text, message):
    with pytest.raises(InputError) as refused:
        recipe.load(str(write(tmp_path / "bad.py", text)))
    assert message in str(refused.value)


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "bad.py"
    path.write_bytes(b"\xff\xfe\x00binary")
    with pytest.raises(InputError, match="UnicodeDecodeError"):
        recipe.load(str(path))


def test_an_unknown_name_names_the_nearest(tmp_path):
    with pytest.raises(UsageError, match="did you mean mast_cpu"):
        recipe.load("mast_cpuu")
    with pytest.raises(UsageError, match=r"no such recipe; give a recipe file or one of: .*mast, mast_cpu"):
        recipe.load(str(tmp_path))


def test_a_shipped_name_is_not_taken_for_a_file_here(tmp_path, monkeypatch):
    write(tmp_path / "mast", "not a recipe")
    monkeypatch.chdir(tmp_path)
    assert recipe.load("mast").name == "mast"


# --- the shipped ones -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(recipe.shipped()))
def test_a_shipped_recipe_takes_two_steps(name):
    experiment = small(name)
    assert experiment.config.net.widths == (4, 4, 8, 8)
    state = experiment.recipe.init(torch.Generator().manual_seed(0))
    for stage in experiment.recipe.stages:
        state = stage.enter(state)
        for step in range(2):
            params = {k: v.detach().requires_grad_() for k, v in state.params.items()}
            state = dataclasses.replace(state, params=params)
            rgb = torch.rand(2, stage.clips.length, 3, 32, 32, generator=torch.Generator().manual_seed(step))
            batch = Batch(rgb, (2 * step, 2 * step + 1), (0, 1))
            out = stage.loss(state, batch, torch.Generator().manual_seed(step), step / 2)
            assert 0 < float(out.loss.detach()) < math.inf
            trained = {k: v for k, v in params.items() if stage.trainable(k)}
            grads = torch.autograd.grad(out.loss, list(trained.values()))
            assert all(bool((g != 0).any()) for g in grads)
            new = params | {k: v.detach() - 1e-3 * g for (k, v), g in zip(trained.items(), grads, strict=True)}
            assert out.stats.keys() == state.stats.keys()
            assert not torch.equal(out.stats["stem.bn.mean"], state.stats["stem.bn.mean"])
            state = dataclasses.replace(
                state,
                params=new,
                stats={k: v.detach() for k, v in out.stats.items()},
                extra=state.extra if out.extra is None else out.extra,
            )


@pytest.mark.parametrize("name", sorted(recipe.shipped()))
def test_a_shipped_recipe_says_what_it_is(name):
    """In a line; and in no more lines than a method section has."""
    path = recipe.shipped()[name]
    line = recipe.summary(path)
    assert len(line) > 20 and "\n" not in line
    assert len(path.read_text().splitlines()) <= 70


def test_the_configuration_of_the_shipped_weights_stays():
    """The model card names the recipe and the number of steps; all other numbers are part of what it states."""
    shipped = load_weights()
    assert shipped.meta["recipe"] == "default"
    made = recipe.load("default", [f"pairs.steps={shipped.meta['step']}"])
    stated, config = dict(shipped.meta["config"]), to_json(made.config)
    for settings in (stated, config):  # how labels are read is chosen afterwards
        del settings["inference"]
    assert config == stated
    reading, same = shipped.inference, {"radius": "same", "scale": "same"}
    inference, matching = made.recipe.inference, made.recipe.matching
    assert inference.matching(matching) == reading.matching(shipped.matching)
    assert dataclasses.replace(inference, **same) == dataclasses.replace(reading, **same)
    assert (made.recipe.net, made.recipe.space) == (shipped.net, shipped.space)


def test_a_stage_of_no_steps_is_left_out_but_not_every_one():
    assert recipe.load("mast_memory", ["memory.steps=0"]).config.memory.steps == 0
    with pytest.raises(UsageError, match=r"pairs.steps: no stage has any steps"):
        recipe.load("mast_memory", ["memory.steps=0", "pairs.steps=0"])


def with_closure(state, batch, rng, progress):
    return lambda: progress


class Method:
    def reads(self, state, batch, rng, share):
        return self, 2 * share

    def __call__(self, state, batch, rng, progress): ...


@pytest.mark.parametrize(
    ("loss", "reads"),
    [
        (lambda state, batch, rng, progress: state, False),
        (lambda state, batch, rng, progress: {"progress": rng}, False),
        (lambda state, batch, rng, progress: (rng, progress), True),
        (lambda state, batch, rng, share: rng if share else state, True),
        (lambda *given: given, True),
        (with_closure, True),
        (functools.wraps(with_closure)(lambda *given: given), True),
        (functools.partial(with_closure, None), True),
        (Method().reads, True),
        (Method(), True),  # it may call another of its methods
    ],
)
def test_a_loss_that_reads_progress_is_known(loss, reads):
    assert recipe.Stage("pairs", Schedule(1, 1, 1e-3), ClipConfig(), loss).reads_progress is reads


def test_of_the_shipped_recipes_corrflow_alone_reads_progress():
    loaded = {name: recipe.load(name).recipe for name in recipe.shipped()}
    assert {name for name, built in loaded.items() if any(p.reads_progress for p in built.stages)} == {"corrflow"}


def test_tensors_do_not_stand_in_the_way_of_comparing() -> None:
    """Two batches are never equal by their tensors, whose comparison is no yes or no."""
    batch = Batch(torch.zeros(1, 2, 3, 4, 4), (0,), torch.zeros(1))
    assert batch == batch and batch != dataclasses.replace(batch) and batch in [dataclasses.replace(batch), batch]
