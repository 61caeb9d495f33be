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
