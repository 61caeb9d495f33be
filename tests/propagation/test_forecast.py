"""What a dry run says of a request, and that it leaves everything as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from vcorr.errors import OutputError
from vcorr.propagation.forecast import forecast
from vcorr.propagation.run import Request, propagate_to


def test_the_disk_space_is_that_of_the_results(frames: Path, mask: Path, weights: Path, tmp_path: Path) -> None:
    request = Request(str(frames), mask, tmp_path / "out", weights=weights)
    expected = forecast(request)
    propagate_to(request)
    taken = sum(file.stat().st_size for file in request.out.rglob("*") if file.is_file())
    assert expected.disk / 2 < taken < expected.disk * 2
    again = forecast(request)
    assert again.left == 0 and again.seconds == 0


def test_a_folder_of_something_else_is_refused_as_it_will_be(
    frames: Path, mask: Path, weights: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="holds no results of vcorr"):
        forecast(Request(str(frames), mask, tmp_path / "out", weights=weights))


def test_thin_objects_are_said_to_be_read_at_a_larger_size(
    frames: Path, mask: Path, weights: Path, tmp_path: Path
) -> None:
    lines: list[str] = []
    request = Request(str(frames), mask, tmp_path / "out", weights=weights, read=("zoom=1.0",))
    expected, plain = forecast(request), forecast(Request(str(frames), mask, tmp_path / "out", weights=weights))
    assert (plain.read_height, plain.read_width) == (plain.height, plain.width)
    assert expected.read_height > expected.height and expected.memory and plain.memory
    propagate_to(request, say=lines.append)
    assert any(f"read at {expected.read_width}x{expected.read_height}" in line for line in lines)
