"""The pool starts as many processes as this one may use cores, whatever the machine has."""

from __future__ import annotations

import os

import pytest

from vcorr.evaluation.pool import outcomes


def process_of(job: int) -> tuple[int, int]:
    return job, os.getpid()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores are chosen on Linux alone")
def test_where_one_core_may_be_used_no_process_starts() -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert list(outcomes(process_of, [3, 1, 2])) == [(3, os.getpid()), (1, os.getpid()), (2, os.getpid())]
    finally:
        os.sched_setaffinity(0, before)
