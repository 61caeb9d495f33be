"""The comparison of two revisions' weights: what it sets, and what it takes for the same."""

from __future__ import annotations

import torch

from benchmarks.same_weights import ROOT, compare, overrides, recipes_of

SHOWN = """seed=0
pairs.steps=3000
pairs.batch=8
memory.steps=500
clips.frames=40
net.widths=(64, 128)
matching.radius=12
decay=0.999
parameters: 1,000
"""


def test_keys_are_set_where_a_revision_has_them() -> None:
    pairs = dict(pair.split("=") for pair in overrides(SHOWN, 40, ["decay=0.5", "absent=1"]))
    assert pairs == {
        "pairs.steps": "10",
        "memory.steps": "30",
        "pairs.batch": "2",
        "clips.frames": "8",
        "net.widths": "16,16,16,16",
        "matching.radius": "2",
        "decay": "0.5",
    }


def test_one_bit_is_a_difference() -> None:
    weights = {"a": torch.ones(3), "b": torch.zeros(2)}
    assert compare(weights, {name: tensor.clone() for name, tensor in weights.items()}) == ""
    other = weights | {"a": torch.tensor([1.0, 1.0, 1.0 + 2**-23])}
    assert compare(weights, other) == "1 of 2 tensors differ, by 1.2e-07 at most, a first"
    assert compare(weights, {"a": torch.ones(3)}) == "other tensors: b"


def test_it_finds_the_recipes() -> None:
    assert {"mast", "liir"} <= recipes_of(ROOT)
