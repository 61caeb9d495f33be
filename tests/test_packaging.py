"""What the wheel holds: every package, every recipe, the weights, and nothing imported before it is needed."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from vcorr.model.weights import default_weights, load_weights
from vcorr.training import recipe

ROOT = Path(__file__).parent.parent


def test_every_package_is_listed() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {".".join(p.parent.relative_to(ROOT).parts) for p in (ROOT / "vcorr").rglob("__init__.py")}
    assert sorted(listed) == sorted(found | {"vcorr.recipes"})


def test_every_recipe_is_shipped() -> None:
    files = {p.stem for p in (ROOT / "recipes").glob("*.py")} - {"__init__"}
    assert set(recipe.shipped()) == files
    for name in files:
        assert recipe.summary(recipe.find(name)), f"{name} has no docstring"


def test_importing_costs_nothing() -> None:
    code = "import sys, vcorr; print(*(m for m in ('torch', 'av', 'kornia', 'triton') if m in sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""
    with pytest.raises(AttributeError, match="no attribute 'propagat'"):
        import vcorr

        vcorr.propagat  # noqa: B018


def test_the_public_names_are_listed() -> None:
    code = "import sys, vcorr; print({'propagate', 'Frame'} <= set(dir(vcorr)), 'torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["True", "False"]


def test_the_default_weights_are_whole() -> None:
    weights = load_weights()
    assert sum(p.numel() for p in weights.params.values()) == 2_941_536
    assert default_weights().stat().st_size < 12_000_000
    config = weights.meta["config"]
    # they say which recipe made them, and that recipe still takes the configuration
    assert recipe.load(weights.meta["recipe"]).recipe.net == weights.net
    assert weights.meta["step"] == config["pairs"]["steps"]
