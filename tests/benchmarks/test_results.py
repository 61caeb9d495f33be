"""The table of results from saved runs: means, spread, what is not told apart, and rows that were not run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.results import COMMON, LOW, ROWS, Row, folder_of, overrides, page, some_clips, steps_of
from benchmarks.same_weights import draw_videos


def save(runs: Path, name: str, seed: int, j_and_f: float, camel: float = 0.5) -> None:
    scores = {
        "j_and_f": j_and_f, "j": {"mean": j_and_f, "recall": 0.5, "decay": 0.1}, "f": {"mean": j_and_f},
        "sequences": [{"name": "camel", "j": {"mean": camel}}],
    }  # fmt: skip
    result = {
        "row": name, "seed": seed, "budget": 96, "scores": scores, "steps": {"pairs": 4, "memory": 2}, "samples": 40,
        "images": 95, "hours": 0.5, "processor": "P", "date": f"2026-01-0{seed + 1}",
    }  # fmt: skip
    folder = folder_of(runs, name, seed)
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(result))


def test_the_page_is_that_of_the_saved_runs(tmp_path: Path) -> None:
    assert "No run is saved yet." in page(tmp_path)
    for seed, score in enumerate((0.40, 0.44)):
        save(tmp_path, "mast", seed, score, camel=score)
    save(tmp_path, "corrflow", 0, 0.39)
    save(tmp_path, "mast_momentum", 0, 0.60)
    save(tmp_path, "10 clips", 0, 0.30)
    text = page(tmp_path)
    assert text == page(tmp_path)
    numbers = "42.0 ± 2.0 | 42.0 | 42.0 | 50.0 | 10.0 | 2 | 4 + 2 | 40 | 95 | 0.50"
    assert f"| mast | 59.6 (57.3, 61.8), YouTube-VOS | {numbers} |" in text.splitlines()
    assert "| liir | 72.1 (69.7, 74.5), YouTube-VOS | not run |" in text
    assert "Two seeds differ by up to 4.0. Not told apart by that: mast and corrflow (3.0)." in text
    assert "| CorrFlow's paper, Kinetics | 59.4 | 3.9 | 27.1 | 71.1 |" in text and "| mast | 42.0 |  |  |  |" in text
    assert "| all clips | 68.2 (66.5, 69.9), YouTube-VOS | 60.0 |" in text and "| 10 clips |  | 30.0 |" in text
    assert "5 runs, 2.5 hours on P, 2026-01-01 to 2026-01-02." in text


@pytest.mark.parametrize("name", [*ROWS, *LOW])
def test_every_row_is_a_configuration_with_the_same_encoder(name: str) -> None:
    from vcorr.config import flatten
    from vcorr.training import recipe

    row = ROWS.get(name) or LOW[name]
    keys = flatten(recipe.load(row.recipe, overrides(row, {}, 3)).config)
    assert (keys["seed"], keys["net.features"], keys["net.kind"]) == (3, 32, "pyramid")
    assert all(pair.split("=")[0] in {*keys, "net"} for pair in COMMON)
    assert all(int(value) <= 8 for key, value in keys.items() if key.endswith(".batch"))


@pytest.mark.slow
def test_steps_spend_the_budget_by_images_that_are_counted(tmp_path: Path) -> None:
    data = draw_videos(tmp_path)
    small = ("net.stem=4", "net.widths=4,8", "net.lateral=8", "matching.radius=2", "clips.size=24", "clips.smallest=20")
    row = Row("mast_memory", (*small, "memory_clips.size=24", "memory_clips.smallest=20"))
    steps, images = steps_of(row, data, 320)
    assert steps == {"pairs": 15, "memory": 3}  # 3/4 of 320 by 8 pairs, 1/4 by 4 clips of 6 frames
    assert images == 15 * 16 + 3 * 24


def test_some_clips_are_the_same_each_time(tmp_path: Path) -> None:
    for k in range(5):
        (tmp_path / "data" / str(k)).mkdir(parents=True)
    first, again = (some_clips(tmp_path / "data", 3, tmp_path / "links").iterdir() for _ in range(2))
    assert len(names := sorted(p.name for p in first)) == 3 and names == sorted(p.name for p in again)
