"""The order of the rooms of vcorr: how many, how high, and how many of them a frame and a clip pass."""

from __future__ import annotations

import dataclasses
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch

pytest.importorskip("grimp")
from benchmarks import house
from benchmarks.same_weights import draw_videos
from tests.training.runs import TOY
from vcorr.propagation.run import Request, propagate_to
from vcorr.training import recipe
from vcorr.training.loop import train

MOST_ROOMS, MOST_FLOORS = 22, 10


def test_the_drawing_is_that_of_the_imports() -> None:
    assert house.drawn(house.PAGE.read_text(encoding="utf-8")) == house.drawing(), "python -m benchmarks.house --write"


def test_rooms_and_floors_are_few_and_no_import_goes_in_a_circle() -> None:
    rooms = house.imports()
    assert len(rooms) <= MOST_ROOMS
    assert len(house.floors(rooms)) <= MOST_FLOORS


def test_a_circle_is_told() -> None:
    assert house.floors({"a": {"b"}, "b": set(), "c": {"a", "b"}}) == [["b"], ["a"], ["c"]]
    with pytest.raises(ValueError, match="circle among a, b"):
        house.floors({"a": {"b"}, "b": {"a"}, "c": set()})


@contextmanager
def passed(*, threads: bool) -> Iterator[tuple[set[str], Callable[[bool], None]]]:
    """The rooms whose functions are called, here or by any thread, while it is told to listen."""
    rooms: set[str] = set()
    listens = False

    def called(frame: FrameType, event: str, _: Any) -> None:
        if listens and event == "call" and (room := house.room_of(str(frame.f_globals.get("__name__", "")))):
            rooms.add(room)

    def listen(on: bool) -> None:
        nonlocal listens
        listens = on

    if threads:
        threading.setprofile(called)
    sys.setprofile(called)
    try:
        yield rooms, listen
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]


def test_the_way_of_a_frame_from_its_file_to_its_mask(frames: Path, mask: Path, weights: Path, tmp_path: Path) -> None:
    request = Request(str(frames), mask, tmp_path / "out", weights=weights)
    with passed(threads=True) as (rooms, listen):
        propagate_to(request, progress=lambda done, total: listen(1 < done < total))
    assert rooms == {"kernels", "labels", "matching", "media", "model", "propagation", "files"}, sorted(rooms)


@pytest.mark.slow
def test_the_way_of_a_clip_from_a_batch_to_its_gradient(tmp_path: Path) -> None:
    """A loss leaves the training for three rooms; it draws by rng, and asks ranks whether it is one of many."""
    experiment = recipe.load("mast", [*TOY, "pairs.steps=3"])
    (stage, *_) = experiment.recipe.stages
    with passed(threads=False) as (rooms, listen):  # others cut the next clips

        def loss(state: recipe.State, *batch: Any) -> recipe.Out:
            listen(True)
            out = stage.loss(state, *batch)
            torch.autograd.grad(out.loss, list(state.params.values()), retain_graph=True, allow_unused=True)
            listen(False)
            return out

        watched = dataclasses.replace(experiment.recipe, stages=(dataclasses.replace(stage, loss=loss),))
        train(dataclasses.replace(experiment, recipe=watched), draw_videos(tmp_path / "videos"), tmp_path / "run")
    assert rooms - {"training", "recipes"} - {"ranks", "rng"} == {"model", "matching", "kernels"}
