"""The examples of docs/kernels.md run as they stand, and their assertions hold."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

PAGE = Path(__file__).parents[2] / "docs" / "kernels.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)


def test_all_examples_are_found() -> None:
    assert len(EXAMPLES) == PAGE.read_text().count("```python") >= 5


@pytest.mark.parametrize("example", EXAMPLES, ids=[re.findall(r"(\w+)\(", e)[-1] for e in EXAMPLES])
def test_example(example: str) -> None:
    torch.manual_seed(0)
    exec(compile(example, str(PAGE), "exec"), {"__name__": "example"})
