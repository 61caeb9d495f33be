"""How sure labels are: what the signals say, and the table that holds them."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tests.toys import model, save_mask, scene
from vcorr.propagation import confidence
from vcorr.propagation.confidence import SIGNALS, signals
from vcorr.propagation.confidence_table import COLUMNS, ConfidenceTable
from vcorr.propagation.run import Request, propagate_to


def named(values: torch.Tensor, signal: str) -> np.ndarray:
    return signals(values)[:, SIGNALS.index(signal)]


def square(share: float, rest: float = 0.0) -> torch.Tensor:
    """A 4x4 object of some share in 10x12 cells, and its share elsewhere [1 10 12 2]."""
    own = torch.full((10, 12), rest)
    own[2:6, 3:7] = share
    return torch.stack([1 - own, own], -1)[None]


def test_the_signals_are_those_of_their_definition() -> None:
    assert named(square(1.0), "size") == pytest.approx(16 / 120)
    assert named(square(1.0), "overlap") == named(square(1.0), "score") == 1
    assert named(square(0.8), "score") == pytest.approx(0.8) and named(square(0.4), "score") == 0
    assert named(square(0.8, 0.1), "overlap") == pytest.approx(16 * 0.8 / (16 + 104 * 0.1))


@given(
    arrays(np.float32, (1, 5, 6, 20), elements=st.floats(0, 1, width=32)),
    st.integers(1, 19),
    st.floats(0.25, 4, width=32),
)
def test_the_signals_of_an_object_hang_on_its_shares_alone(values: np.ndarray, object_: int, scale: float) -> None:
    """Not on where it stands among the others, nor on what the shares sum to."""
    got = signals(torch.from_numpy(values))
    assert got.shape == (19, len(SIGNALS)) and np.isfinite(got).all() and (got >= 0).all() and (got[:, :3] <= 1).all()
    order = np.r_[0, object_, np.delete(np.arange(1, 20), object_ - 1)]
    if len(np.unique(values)) < values.size:  # of equal shares the first counts
        return
    swapped = signals(torch.from_numpy(np.ascontiguousarray(values[..., order])))
    np.testing.assert_allclose(swapped[0], got[object_ - 1], atol=1e-4)
    np.testing.assert_allclose(signals(torch.from_numpy(values * scale)), got, atol=1e-3)


def filled(path: Path, frames: range, seed: int = 0) -> ConfidenceTable:
    rng = np.random.default_rng(seed)
    table = ConfidenceTable(path, [1, 7], frames)
    table.prepare()
    for k in reversed(frames):
        table.write(k, rng.random((2, len(SIGNALS))).astype(np.float32))
    return table


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    frames = range(3, 8)
    table = filled(tmp_path / "t.csv", frames)
    again = ConfidenceTable(tmp_path / "t.csv", [1, 7], frames)
    assert again.missing() == set() and not again.is_whole([])
    np.testing.assert_array_equal(again.signals, table.signals)
    sure = np.linspace(0, 1, 10, dtype=np.float32).reshape(5, 2)
    table.finish(sure)
    assert again.is_whole([]) and [p.name for p in tmp_path.iterdir()] == ["t.csv"]
    np.testing.assert_allclose(again.confidence, sure, atol=5e-4)
    np.testing.assert_array_equal(again.signals, table.signals)
    rows = list(csv.reader((tmp_path / "t.csv").read_text().splitlines()))
    assert tuple(rows[0]) == COLUMNS and [r[:2] for r in rows[1:3]] == [["3", "1"], ["3", "7"]]


@given(st.integers(0, 400))
def test_a_torn_table_lacks_the_torn_frame_alone(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    folder = tmp_path_factory.mktemp("torn")
    whole = filled(folder / "t.csv", range(5)).signals.copy()
    journal = folder / ".t.csv"
    journal.write_bytes(journal.read_bytes()[:cut])
    table = ConfidenceTable(folder / "t.csv", [1, 7], range(5))
    table.prepare()
    missing = table.missing()
    assert missing == set(range(len(missing)))  # they were written from the last on
    for k in missing:
        table.write(k, whole[k])
    np.testing.assert_array_equal(table.signals, whole)
    np.testing.assert_array_equal(ConfidenceTable(folder / "t.csv", [1, 7], range(5)).missing(), set())


@pytest.mark.parametrize(
    "text",
    [
        *["", "frame\n", "0,1,,a,b,c\n", "0,1,,inf,0,0\n0,7,,0,0,0\n", "\xff,\0", "9,1,,1,1,1\n9,7,,1,1,1\n"],
        *[
            "nan,1,,1,1,1\nnan,7,,1,1,1\n",
            "inf,1,,1,1,1\ninf,7,,1,1,1\n",
            "0,1,,1,1,1\n0,7,,1,1,1",
            "0,7,,1,1,1\n0,1,,1,1,1\n",
        ],
    ],
)
def test_what_is_no_row_of_ours_is_passed_over(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.csv").write_bytes(text.encode("latin-1"))
    assert ConfidenceTable(tmp_path / "t.csv", [1, 7], range(2)).missing() == {0, 1}


def test_an_update_keeps_the_rows_of_frames_that_it_does_not_touch(
    request_for: Callable[..., Request], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vcorr.propagation.run.Model.of", lambda weights, device: model())
    given = {k: save_mask(tmp_path / f"given{k}.png", scene(k)[1]) for k in (3, 6)}
    propagate_to(request_for(at={3: given[3]}))
    path = request_for().out / "confidence.csv"
    before = path.read_text().splitlines()
    assert before[1].startswith("0,1,1.000,,") and before[7].startswith("3,1,1.000,,")
    propagate_to(request_for(at={6: given[6]}, update=True))
    after = path.read_text().splitlines()
    assert after[:9] == before[:9] and after[9:13] != before[9:13] and after[13].startswith("6,1,1.000,,")
    propagate_to(request_for("whole", at=given))
    assert path.read_bytes() == (request_for("whole").out / "confidence.csv").read_bytes()
    new = save_mask(tmp_path / "new.png", np.where(scene(5)[1] == 2, 3, 1).astype(np.uint8))
    propagate_to(request_for(at={5: new}, update=True))
    rows = [row.split(",") for row in path.read_text().splitlines()]
    assert [row[1] for row in rows[1:4]] == ["1", "2", "3"] and rows[6][:2] == ["1", "3"]
    assert path.read_text().splitlines()[4:6] == before[3:5]


def test_a_table_that_is_lost_is_made_again(request_for: Callable[..., Request]) -> None:
    request = request_for()
    propagate_to(request)
    path = request.out / "confidence.csv"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    propagate_to(request)
    assert path.read_bytes() == whole
    path.unlink()
    propagate_to(request)
    assert path.read_bytes() == whole


def test_every_object_is_rated_however_many(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.rand(1, 6, 7, 12)
    all_ = signals(values)
    monkeypatch.setattr(confidence, "AT_ONCE", 3)
    np.testing.assert_array_equal(signals(values), all_)
