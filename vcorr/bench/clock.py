"""Time and memory of calls on a device; what the machine is."""

from __future__ import annotations

import datetime
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

from vcorr.machine import processor_name

Work = Callable[[], object]
SHORTEST = 5e-3  # seconds of one measurement on a GPU: as many calls as that takes
WARM = 3  # calls on a GPU before any is timed


@dataclass
class Times:
    """Seconds of one call in each round, of a GPU also what the host needs to launch it."""

    device: list[float] = field(default_factory=list)
    host: list[float] = field(default_factory=list)

    @property
    def least(self) -> float:
        return min(self.device)

    @property
    def median(self) -> float:
        return statistics.median(self.device)


class Clock:
    """Times calls: on a CPU one at a time, on a GPU between events, as many as make 5 ms."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.repeats: dict[str, int] = {}

    def warm(self, name: str, work: Work) -> None:
        """Bring a method to speed, and learn how often to repeat it."""
        if self.device.type != "cuda":
            return
        for _ in range(WARM):
            work()
        self.repeats[name] = max(1, round(SHORTEST / self._on_gpu(work, 1)[0]))

    def add(self, name: str, work: Work, times: Times) -> None:
        """One measurement more."""
        if self.device.type == "cuda":
            seconds, host = self._on_gpu(work, self.repeats[name])
            times.host.append(host)
        else:
            start = time.perf_counter()
            work()
            seconds = time.perf_counter() - start
        times.device.append(seconds)

    def _on_gpu(self, work: Work, repeats: int) -> tuple[float, float]:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        wait(self.device)
        start = time.perf_counter()
        begin.record()
        for _ in range(repeats):
            work()
        end.record()
        host = time.perf_counter() - start
        end.synchronize()
        return begin.elapsed_time(end) / 1e3 / repeats, host / repeats


def interleave(
    work: Mapping[str, Work], calibration: Work, clock: Clock, rounds: int, budget: float
) -> tuple[dict[str, Times], Times]:
    """Times of every method and of the calibration, round by round, the calibration before each method.

    Args:
        budget: seconds after which a slow method is left out of further rounds; two rounds are run in any case, of a
            method that takes as long for one call, one.
    """
    times, product = {name: Times() for name in work}, Times()
    for name, step in (*work.items(), ("", calibration)):
        clock.warm(name, step)
    for round_ in range(rounds):
        for name, step in work.items():
            spent = sum(times[name].device) * clock.repeats.get(name, 1)
            if spent > (budget if round_ >= 2 else budget * round_):
                continue
            clock.add("", calibration, product)
            clock.add(name, step, times[name])
    return times, product


def wait(device: torch.device) -> None:
    """Until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def extra_bytes_on_gpu(work: Work, device: torch.device) -> int:
    """The most that a call allocates beyond what is held before it."""
    wait(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    work()
    wait(device)
    return int(torch.cuda.max_memory_allocated(device)) - before


def machine_facts(name: str) -> dict[str, str | int]:
    """Where, with what and when: what a table of times needs beside it."""
    device = torch.device(name)
    facts: dict[str, str | int] = {
        "device": f"{processor_name()}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
    }
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        facts["device"] = f"{torch.cuda.get_device_name(device)} (compute capability {major}.{minor})"
    return facts
