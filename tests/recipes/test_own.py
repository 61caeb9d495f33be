"""A recipe of one's own that fails while it trains."""

from __future__ import annotations

import pytest

from tests.training.test_recipe import GOOD, write
from vcorr.errors import InputError, OutputError
from vcorr.training import recipe

FAILING = """
import dataclasses

def fails(*args):
    return args[-1].nothing

def build(cfg):
    base = mast.build(cfg)
    (pairs,) = base.stages
    stage = dataclasses.replace(pairs, loss=lambda state, *rest: fails(*rest), enter=lambda state: fails(state))
    return dataclasses.replace(base, init=lambda rng: fails(rng), stages=(stage,))
"""


@pytest.mark.parametrize("part", ["loss", "enter", "init"])
def test_a_recipe_that_fails_while_it_trains_is_blamed_by_line(tmp_path, part):
    path = write(tmp_path / "late.py", GOOD.replace("build = mast.build\n", "") + FAILING)
    built = recipe.load(str(path)).recipe
    call = {"init": built.init, "enter": built.stages[0].enter, "loss": built.stages[0].loss}[part]
    with pytest.raises(InputError, match=r"late\.py:\d+: AttributeError: .*'nothing'; mend the recipe") as refused:
        call(*[1.0] * (4 if part == "loss" else 1))
    line = int(str(refused.value).split("late.py:")[1].split(":")[0])
    assert path.read_text().splitlines()[line - 1] == "    return args[-1].nothing"


def test_errors_that_are_not_the_recipes_own_go_through(tmp_path):
    """Those that say what to do, and those of a base that the file only takes over."""
    text = GOOD + "\nfrom vcorr.errors import OutputError\ndef build(cfg):\n    base = mast.build(cfg)\n"
    text += "    def full(rng):\n        raise OutputError('here', 'is full', 'make room')\n"
    text += "    return __import__('dataclasses').replace(base, init=full)\n"
    built = recipe.load(str(write(tmp_path / "own.py", text))).recipe
    with pytest.raises(OutputError, match="here: is full; make room"):
        built.init(None)
    with pytest.raises(AttributeError):
        built.stages[0].loss(None, None, None, 0.0)
