"""What this machine has: versions, cores, and the device to compute on."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import inspect
import os
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

import vcorr
from vcorr.errors import UsageError

if TYPE_CHECKING:
    import torch

P = ParamSpec("P")
R = TypeVar("R")


def cores(system: Path = Path("/")) -> int:
    """CPU cores that this process may use: those of its affinity, or fewer by the quota of its container.

    Args:
        system: where /proc and /sys lie.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min([affinity, *_quotas(system)])))


def _quotas(system: Path) -> Iterator[float]:
    """Cores that each control group (Linux, versions 1 and 2) around this process grants."""
    try:
        lines = (system / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = system / "sys/fs/cgroup" / ("cpu" if controllers else "")
        # A container may see its own group as the root while its path is still told as the host has it.
        for folder in {root, *(root / part for part in _with_parents(group.strip("/")))}:
            try:
                if controllers:
                    quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
                else:
                    quota, period = (folder / "cpu.max").read_text().split()
                if quota.strip() not in ("max", "-1"):
                    yield int(quota) / int(period)
            except (OSError, ValueError, ZeroDivisionError):
                continue


def _with_parents(group: str) -> Iterator[str]:
    parts = group.split("/")
    return ("/".join(parts[:k]) for k in range(1, len(parts) + 1) if group)


def pick_device(name: str | torch.device) -> torch.device:
    """``auto`` is the GPU if there is one; anything else must exist.

    Raises:
        UsageError: unknown, or not on this machine.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"--device {name}", f"cannot be used here ({reason})", "give cpu, or auto") from None
    if device.type == "meta":
        raise UsageError(f"--device {name}", "computes nothing", "give cpu, or auto")
    return device


def native_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware; elsewhere autocast only costs accuracy and time."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu" and torch.backends.cpu.get_cpu_capability().startswith("AVX512"):  # may be forbidden
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False


@contextmanager
def own_modes() -> Iterator[None]:
    """Inside, torch makes tensors on the CPU, records gradients and casts nothing, whatever modes the caller is in."""
    import torch

    with ExitStack() as modes:
        if torch.get_default_device().type != "cpu":
            modes.enter_context(torch.device("cpu"))
        modes.enter_context(torch.inference_mode(False))
        modes.enter_context(torch.enable_grad())
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                modes.enter_context(torch.autocast(kind, enabled=False))
        yield


def in_own_modes(function: Callable[P, R]) -> Callable[P, R]:
    """The function, or generator step by step, run in ``own_modes``: between its steps, the caller's hold."""

    @functools.wraps(function)
    def call(*args: P.args, **options: P.kwargs) -> R:
        with own_modes():
            return function(*args, **options)

    @functools.wraps(function)
    def steps(*args: P.args, **options: P.kwargs) -> Iterator[Any]:
        items: Any = function(*args, **options)
        try:
            while True:
                with own_modes():
                    try:
                        item = next(items)
                    except StopIteration:
                        return
                yield item
        finally:
            items.close()

    return cast("Callable[P, R]", steps) if inspect.isgeneratorfunction(function) else call


def free_memory(system: Path = Path("/")) -> int | None:
    """Bytes of memory that may still be taken, as Linux says; None if unknown.

    Args:
        system: where /proc and /sys lie.
    """
    found = []
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = (system / "proc/meminfo").read_text().splitlines()
        found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    with contextlib.suppress(OSError, ValueError):
        most, held = ((system / "sys/fs/cgroup" / name).read_text() for name in ("memory.max", "memory.current"))
        if most.strip() != "max":
            found.append(max(0, int(most) - int(held)))
    return min(found, default=None)


def peak_memory(device: torch.device) -> int | None:
    """The most bytes that this process held so far, of the GPU if the device is one; None if unknown."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.max_memory_reserved(device))
    try:
        import resource  # not on Windows
    except ImportError:
        return None
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * (1 if sys.platform == "darwin" else 1024)


def processor_name() -> str:
    """The CPU's, as it calls itself."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def conditions(device: torch.device) -> dict[str, Any]:
    """What the last bits of a result hang on, besides what it is computed from."""
    import torch

    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        processor = f"{torch.cuda.get_device_name(device)}, {major}.{minor}"
    else:
        processor = f"{processor_name()}, {torch.backends.cpu.get_cpu_capability()}"
    return {
        "torch": torch.__version__,
        "device": device.type,
        "processor": processor,
        "threads": torch.get_num_threads(),
        "bf16": native_bf16(device),
    }


def goes_on(now: dict[str, Any], before: Any, say: Callable[[str], None]) -> dict[str, Any]:
    """``conditions`` of work that goes on where work under those of ``before`` stopped: what differs is said.

    Returns:
        ``now``, with what was otherwise so far as ``"earlier"``: one entry for each set of conditions.
    """
    before = before if isinstance(before, dict) else {}
    was = {key: before[key] for key in now if key in before}
    earlier = [other for other in before.get("earlier", []) if other != was]
    if changed := [key for key in was if was[key] != now[key]]:
        for key in changed:
            say(f"{key}: {was[key]} before, {now[key]} now; the last bits will differ from an unbroken run's")
        earlier.append(was)
    return now | {"earlier": earlier} if earlier else now


def versions() -> dict[str, str]:
    """Versions of vcorr and what it stands on, and the device that ``auto`` picks."""
    import torch

    try:
        triton = importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        triton = "not installed"
    device = pick_device("auto")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    precision = "bfloat16 in hardware" if native_bf16(device) else "float32"
    return {
        "vcorr": vcorr.__version__,
        "torch": torch.__version__,
        "triton": triton,
        "python": platform.python_version(),
        "device": f"{device.type} ({name}, {torch.get_num_threads()} threads, {precision})",
    }
