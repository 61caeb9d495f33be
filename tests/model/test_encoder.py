"""Features of pictures by trained weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.toys import scene
from vcorr.errors import InputError
from vcorr.model import color, network
from vcorr.model import encoder as encoders
from vcorr.model.encoder import encoder
from vcorr.model.inference import Inference
from vcorr.model.position import PositionConfig
from vcorr.model.weights import load_weights, save_weights


@pytest.mark.parametrize("space", ["lab", "rgb", "gray"])
def test_the_encoder_sees_what_its_weights_say(
    weights: Path, space: color.Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoders, "native_bf16", lambda device: False)
    model = load_weights(weights)
    model = replace(model, space=space)
    rgb = scene(0)[0]
    got = encoder(model, "cpu").query(rgb)
    seen = color.to_space(color.from_uint8(rgb[None]), space)
    wanted, _ = network.apply(model.net, model.params, model.stats, seen, train=False)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)
    others = [color.to_space(color.from_uint8(rgb[None]), s) for s in ("lab", "rgb", "gray") if s != space]
    for other in others:
        unlike, _ = network.apply(model.net, model.params, model.stats, other, train=False)
        assert float((got - unlike).abs().max()) > 0.01


def test_weights_with_a_slow_encoder_read_references_with_it(weights: Path, tmp_path: Path) -> None:
    model = load_weights(weights)
    slow = {k: v + 0.1 for k, v in model.params.items()}
    slow_stats = {k: v + 0.2 for k, v in model.stats.items()}
    both = replace(model, slow=slow, slow_stats=slow_stats, inference=Inference(slow=True))
    save_weights(tmp_path / "both.safetensors", both)
    loaded = load_weights(tmp_path / "both.safetensors")
    assert all(torch.equal(loaded.slow[k], slow[k]) for k in slow)
    encode, rgb = encoder(loaded, "cpu"), scene(0)[0]
    query = encoder(model, "cpu").query(rgb)
    torch.testing.assert_close(encode.query(rgb), query)
    wanted = encoder(replace(model, params=slow, stats=slow_stats), "cpu").query(rgb)
    torch.testing.assert_close(encode.reference(rgb, query), wanted)
    alike = replace(loaded, inference=Inference(slow=False))
    torch.testing.assert_close(encoder(alike, "cpu").reference(rgb), query)
    assert encoder(model, "cpu").reference(rgb, query) is query
    del slow["head.bias"]
    save_weights(tmp_path / "damaged.safetensors", both)
    with pytest.raises(InputError, match="lacks 1 tensors"):
        load_weights(tmp_path / "damaged.safetensors")


def test_a_learned_position_reaches_every_frame(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Resized to the size at hand, and again when that changes."""
    monkeypatch.setattr(encoders, "native_bf16", lambda device: False)
    model = load_weights(weights)
    net = replace(model.net, position=PositionConfig("1dape", 16))
    place = torch.randn(8, 16, 16, generator=torch.Generator().manual_seed(0))
    model = replace(model, net=net, params=model.params | {"position.map": place})
    encode = encoder(model, "cpu").query
    for rgb in (scene(0)[0], scene(1)[0], scene(0)[0][:31, :40]):
        seen = color.to_lab(color.from_uint8(np.ascontiguousarray(rgb)[None]))
        wanted, _ = network.apply(net, model.params, model.stats, seen, train=False)
        torch.testing.assert_close(encode(np.ascontiguousarray(rgb)), wanted, rtol=1e-4, atol=1e-4)
