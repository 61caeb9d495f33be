"""A call that fails, dies or hangs is told, and the next one is answered."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from benchmarks.apart import Apart, Failed


@pytest.fixture
def apart() -> Iterator[Apart]:
    made = Apart(limit=60)
    yield made
    made.close()


@pytest.mark.slow
def test_calls_share_a_process_until_one_takes_it_along(apart: Apart) -> None:
    first = apart(os.getpid)
    assert first != os.getpid()
    with pytest.raises(Failed, match=r"^invalid literal for int\(\) with base 10: 'x'$"):
        apart(int, "x")
    assert apart(os.getpid) == first
    with pytest.raises(Failed, match="its process ended with code 7"):
        apart(os._exit, 7)
    assert apart(os.getpid) != first
    apart.limit = 0.5
    with pytest.raises(Failed, match=r"took more than 0\.5 s"):
        apart(time.sleep, 60)
    apart.limit = 60
    assert apart(int, "3") == 3
