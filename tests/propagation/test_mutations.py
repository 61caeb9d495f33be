"""The faults of benchmarks/mutations.py fit the code as it is now; the script itself runs the tests on each."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks.mutations import MUTATIONS, ROOT


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_fault_can_be_put_in(name: str, tmp_path: Path) -> None:
    mutation = MUTATIONS[name]
    copy = tmp_path / mutation.path
    copy.parent.mkdir(parents=True)
    shutil.copyfile(ROOT / mutation.path, copy)
    mutation.apply(tmp_path)
    compile(copy.read_text(encoding="utf-8"), str(copy), "exec")
