"""Labels read by the protocols of the papers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from vcorr import rng
from vcorr.errors import UsageError
from vcorr.matching.settings import Matching
from vcorr.model import network
from vcorr.model.inference import Inference, References
from vcorr.model.resnet import ResNetConfig
from vcorr.model.weights import Weights, default_weights, load_weights, save_weights
from vcorr.propagation.methods import Method, read_by
from vcorr.propagation.run import Request, propagate_to
from vcorr.propagation.video import propagate


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    """A tiny encoder with a slow one beside it, whose logits have a scale of their own."""
    net = ResNetConfig(widths=(8, 8, 8, 8), features=8)
    params, stats = network.init(net, rng.generator(0, "init"))
    path = tmp_path / "slow.safetensors"
    slow, slow_stats = ({k: v.clone() for k, v in group.items()} for group in (params, stats))
    read = Inference(scale=9.0)
    save_weights(path, Weights(params, stats, net, Matching(radius=4), read, {}, slow=slow, slow_stats=slow_stats))
    return path


@pytest.mark.parametrize("method", get_args(Method))
def test_each_labels_a_video(request_for: Callable[..., Request], slow: Path, method: Method) -> None:
    read = ("references.short=1,2",) if method == "walk" else ()
    request = request_for(weights=slow, method=method, read=read, end=4)
    propagate_to(request)
    assert len(list((request.out / "masks").iterdir())) == 4
    assert json.loads((request.out / "manifest.json").read_text())["options"]["method"] == method


def test_settings_come_on_top_of_a_method_and_the_scale_is_the_weights(slow: Path) -> None:
    weights = load_weights(slow)
    assert read_by(weights).inference == weights.inference
    walk = read_by(weights, "walk", ["top_k=5", "references.short=1,2"]).inference
    assert (walk.top_k, walk.scale, walk.shape) == (5, 9.0, "disk")
    assert walk.references == References((0,), (1, 2), whole=True, repeat=True)
    mast = read_by(load_weights(default_weights()), "mast").inference
    assert (mast.roi_search, mast.follow, mast.appearance, mast.scale) == (15, None, 0.0, 28.0)


@pytest.mark.parametrize(
    ("method", "settings", "said"),
    [
        ("momentum", [], "--method momentum: needs weights with a slow encoder"),
        (None, ["slow=true"], "--read slow=true: needs weights with a slow encoder"),
        ("mast", ["top_k=3"], "roi_search must be >= 0, and 0 where there is a top_k"),
        (None, ["topk=3"], "no such key"),
        ("crw", [], "--method crw: is not known; give mast, momentum, liir, walk"),
    ],
)
def test_what_cannot_be_read_is_refused(method: Method, settings: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read_by(load_weights(default_weights()), method, settings)


def test_in_python_and_in_a_folder_they_are_the_same(
    request_for: Callable[..., Request], frames: Path, mask: Path, weights: Path
) -> None:
    request = request_for(read=("radius=1",), end=3)
    propagate_to(request)
    found = list(propagate(frames, mask, weights=weights, end=3, read=["radius=1"]))
    plain = list(propagate(frames, mask, weights=weights, end=3))
    assert len(found) == 3 and not all(np.array_equal(a.mask, b.mask) for a, b in zip(found, plain, strict=True))
    assert json.loads((request.out / "manifest.json").read_text())["options"]["read"] == ["radius=1"]
