"""How many examples hypothesis draws: all of a test's own number in CI, a share of them elsewhere."""

from __future__ import annotations

from typing import Any

from hypothesis import settings

ALL = 100  # max_examples of the profile that takes every example


def examples(count: int, **more: Any) -> settings:
    """Settings with the profile's share of ``count`` examples, and five at least."""
    return settings(max_examples=min(count, max(5, count * settings.default.max_examples // ALL)), **more)
