"""The only maker of randomness: generators from (seed, purpose, step).

A draw depends on what it is for and when it happens, never on what was drawn before it. So a resumed run draws
what the unbroken run would have drawn, and two purposes never disturb one another.
"""

from __future__ import annotations

import hashlib

import torch


def generator(seed: int, purpose: str, step: int = 0) -> torch.Generator:
    """A CPU generator for one purpose at one step.

    Args:
        seed: the run's seed, any integer.
        purpose: what the draws are for, e.g. ``"init"`` or ``"clip"``.
        step: the training step, epoch or sample that draws.

    >>> a, b = generator(0, "clip", 7), generator(0, "clip", 7)
    >>> bool((torch.rand(3, generator=a) == torch.rand(3, generator=b)).all())
    True
    """
    digest = hashlib.sha256(f"{seed}/{purpose}/{step}".encode()).digest()
    # manual_seed takes 64 bits; 63 keep it positive on every platform.
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def integer(low: int, high: int, rng: torch.Generator) -> int:
    """One integer, uniform in [low, high)."""
    return int(torch.randint(low, high, (), generator=rng))


def uniform(low: float, high: float, rng: torch.Generator) -> float:
    """One number, uniform in [low, high)."""
    return low + (high - low) * float(torch.rand((), generator=rng, dtype=torch.float64))
