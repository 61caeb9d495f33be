"""Settings of reading: what goes together."""

from __future__ import annotations

import pytest

from vcorr.config import from_json, to_json
from vcorr.matching.settings import Matching
from vcorr.model.inference import Inference, References, Settings


def test_labels_are_read_as_was_trained_but_for_what_is_said():
    trained = Matching(radius=6, scale=14.0, border="zeros", alignment="corner")
    assert Inference().matching(trained) == trained
    assert Inference(radius=None, scale=28.0).matching(trained) == Matching(None, 28.0, "zeros", "corner")
    assert Inference(scale=None).matching(trained).scale is None


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"compactness": 2, "top_k": 5}, "compactness must be >= 0, and 0 where there is a top_k, got 2 with top_k 5"),
        ({"top_k": 0}, "top_k must be at least 1"),
        ({"roi_search": -1}, "roi_search must be >= 0"),
        ({"roi_search": 15, "top_k": 4}, "0 where there is a top_k or compactness"),
        ({"roi_search": 15, "compactness": 2}, "0 where there is a top_k or compactness"),
        ({"roi_search": 15, "radius": None}, "roi_search must be 0 where the whole frame is read"),
        ({"screen": -0.1}, "screen must lie in"),
        ({"screen": 0.01, "compactness": 2}, "None, which it must be with compactness"),
        ({"screen": 0.01, "radius": None}, "screen must be None for the whole frame"),
        ({"appearance": -1.0}, "appearance must lie in"),
        ({"appearance": float("nan")}, "appearance must lie in"),
        ({"appearance": 1.0, "feedback": "hard"}, "be 0 where feedback is hard"),
        ({"shape": "disk", "compactness": 2}, "compactness and roi_search must be 0 but for square windows"),
        ({"shape": "disk", "roi_search": 15}, "compactness and roi_search must be 0 but for square windows"),
        ({"shape": "disk", "radius": 0}, "radius must be at least 1 where the shape is disk"),
        ({"references": References(whole=True), "follow": 0.1}, "must be None where long references are read whole"),
        ({"references": References(whole=True), "screen": 0.1}, "must be None where long references are read whole"),
        ({"radius": -1}, "radius must be >= 0, got -1"),
        ({"scale": float("inf")}, "scale must be finite, got inf"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Settings(inference=Inference(**wrong))


@pytest.mark.parametrize("wrong", [{"long": (-1,)}, {"short": (0,)}])
def test_references_that_are_not_there_are_refused(wrong):
    with pytest.raises(ValueError, match="long must be >= 0 and short >= 1"):
        References(**wrong)


@pytest.mark.parametrize("inference", [Inference(), Inference(radius=None), Inference(radius=3, top_k=5, shape="disk")])
def test_settings_survive_json(inference):
    settings = Settings(Matching(radius=None, scale=3.0), inference, "gray")
    assert from_json(Settings, to_json(settings)) == settings
