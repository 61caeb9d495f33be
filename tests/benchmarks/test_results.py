"""The table of results from saved runs: means, spread, what is not told apart, and rows that were not run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.results import COMMON, LOW, ROWS, Row, folder_of, overrides, page, some_of, steps_of
from benchmarks.same_weights import draw_videos


def save(runs: Path, name: str, seed: int, j_and_f: float, camel: float = 0.5, **more: object) -> None:
    scores = {
        "j_and_f": j_and_f, "j": {"mean": j_and_f, "recall": 0.5, "decay": 0.1}, "f": {"mean": j_and_f},
        "objects": 1, "frames": 88, "sequences": [{"name": "camel", "j": {"mean": camel}}],
    }  # fmt: skip
    result = {
        "row": name, "seed": seed, "budget": 96, "scores": scores, "steps": {"pairs": 4, "memory": 2}, "images": 95,
        "seen": [[32, 2], [8, 6]], "hours": {"trained": 0.5, "scored": 0.25}, "processor": "P", "set": "davis",
        "data": {"name": "train", "videos": 9, "frames": 120, "sha256": "a"}, "date": f"2026-01-0{seed + 1}",
    } | more  # fmt: skip
    folder = folder_of(runs, name, seed)
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(result))


def test_the_page_is_that_of_the_saved_runs(tmp_path: Path) -> None:
    assert "No run is saved yet." in page(tmp_path)
    for seed, score in enumerate((0.40, 0.44)):
        save(tmp_path, "mast", seed, score, camel=score)
    save(tmp_path, "corrflow", 0, 0.39)
    save(tmp_path, "mast_memory", 0, 0.45)
    save(tmp_path, "mast_momentum", 0, 0.60)
    save(tmp_path, "10 clips", 0, 0.30, data={"name": "train", "videos": 2, "frames": 30, "sha256": "b"})
    text = page(tmp_path)
    assert text == page(tmp_path)
    lines = text.splitlines()
    numbers = "42.0 ± 2.0 | 42.0 | 42.0 | 50.0 | 10.0 | 2 | 4 + 2 | 32 pairs + 8 clips of 6 | 95 | 0.50, 0.25"
    assert f"| mast | 59.6 (57.3, 61.8), YouTube-VOS | {numbers} |" in lines
    assert "| liir | 72.1 (69.7, 74.5), YouTube-VOS | not run |" in text
    assert "Seeds of one row (mast) differ by up to 4.0." in text
    assert "| mast_memory | mast | +4.2 | +3.0 | not told apart |" in lines
    assert "| mast_momentum | mast_memory | +4.4 | +15.0 | more |" in lines
    assert "| liir | liir, base | +6.8 | not run: liir and liir, base | |" in lines
    assert "not told apart: mast and corrflow (3.0); mast_memory and mast (3.0)." in text
    assert "| CorrFlow's paper, Kinetics | 59.4 | 3.9 | 27.1 | 71.1 |" in lines
    assert "| mast | 42.0 | not scored | not scored | not scored |" in lines
    assert "| liir | not run | not run | not run | not run |" in lines
    assert f"| all clips | 120 | 68.2 (66.5, 69.9), YouTube-VOS | 60.0 | 1 | {'█' * 30} |" in lines
    assert f"| 10 clips | 30 |  | 30.0 | 1 | {'█' * 15} |" in lines and "| 50 clips | |  | not run | | |" in lines
    assert "(train: 9 videos, 120 frames)" in text and "Scored on davis: 1 objects, 88 frames of camel." in text
    assert "6 runs on P, one thread, 2026-01-01 to 2026-01-02: 3.0 hours of a core to train, 1.5 to" in text


def test_one_seed_tells_nothing_apart(tmp_path: Path) -> None:
    for name, score in (("mast", 0.4), ("mast_memory", 0.6)):
        save(tmp_path, name, 0, score)
    assert "No row has two seeds" in page(tmp_path) and "| mast_memory | mast | +4.2 | +20.0 |  |" in page(tmp_path)


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ({"budget": 97}, "budgets"),
        ({"data": {"name": "x", "videos": 1, "frames": 2, "sha256": "b"}}, "training data"),
        ({"scores": {"sequences": [{"name": "goat"}]}}, "scored sequences"),
    ],
)
def test_what_is_not_comparable_is_refused(tmp_path: Path, more: dict[str, object], what: str) -> None:
    save(tmp_path, "mast", 0, 0.4)
    save(tmp_path, "liir", 0, 0.4, **more)
    with pytest.raises(SystemExit, match=f"different {what}"):
        page(tmp_path)


@pytest.mark.parametrize("name", [*ROWS, *LOW])
def test_every_row_is_a_configuration_with_the_same_encoder(name: str) -> None:
    from vcorr.config import flatten
    from vcorr.training import recipe

    row = ROWS.get(name) or LOW[name]
    keys = flatten(recipe.load(row.recipe, overrides(row, {}, 3)).config)
    assert (keys["seed"], keys["net.features"], keys["net.kind"]) == (3, 32, "pyramid")
    assert all(pair.split("=")[0] in {*keys, "net"} for pair in COMMON)
    assert all(int(value) <= 8 for key, value in keys.items() if key.endswith(".batch"))


def test_a_short_stage_still_reaches_its_rate() -> None:
    found = overrides(ROWS["mast_memory"], {"pairs": 900, "memory": 42}, 0)
    assert {"pairs.warmup=50", "memory.warmup=4"} <= set(found)


@pytest.mark.slow
def test_steps_spend_the_budget_by_images_that_are_counted(tmp_path: Path) -> None:
    data = draw_videos(tmp_path)
    small = ("net.stem=4", "net.widths=4,8", "net.lateral=8", "matching.radius=2", "clips.size=24", "clips.smallest=20")
    row = Row("mast_memory", (*small, "memory_clips.size=24", "memory_clips.smallest=20"))
    steps, images = steps_of(row, data, 320)
    assert steps == {"pairs": 15, "memory": 3}  # 3/4 of 320 by 8 pairs, 1/4 by 4 clips of 6 frames
    assert images == 15 * 16 + 3 * 24


@pytest.mark.parametrize("images", [False, True])
def test_some_of_the_data_are_the_same_each_time(tmp_path: Path, images: bool) -> None:
    data, at = tmp_path / "data", tmp_path / "some"
    for k in range(5):
        (data / str(k)).mkdir(parents=True)
        (data / f"{k}.jpg").touch()
    first, again = ({path.name for path in some_of(data, 3, at, images=images).iterdir()} for _ in range(2))
    assert first == again and len(first) == 3 and all(name.endswith(".jpg") == images for name in first)
    with pytest.raises(SystemExit, match=r"5 (images|folders), and 6"):
        some_of(data, 6, at, images=images)
