"""The faults of benchmarks/mutations.py and mends.py fit the code as it is; the scripts run the tests on each."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks.mends import MENDS
from benchmarks.mutations import MUTATIONS, ROOT


@pytest.mark.parametrize("name", [*MUTATIONS, *MENDS])
def test_a_fault_can_be_put_in(name: str, tmp_path: Path) -> None:
    mutation = (MUTATIONS | MENDS)[name]
    copy = tmp_path / mutation.path
    copy.parent.mkdir(parents=True)
    shutil.copyfile(ROOT / mutation.path, copy)
    mutation.apply(tmp_path)
    compile(copy.read_text(encoding="utf-8"), str(copy), "exec")
