"""What this machine has: versions, and the device to compute on."""

from __future__ import annotations

import importlib.metadata
import platform

import torch

import vcorr
from vcorr.errors import UsageError


def pick_device(name: str) -> torch.device:
    """``auto`` is the GPU if there is one; anything else must exist.

    Raises:
        UsageError: unknown, or not on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"--device {name}", f"cannot be used here ({reason})", "give cpu, or auto") from None
    return device


def native_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware; elsewhere autocast only costs accuracy and time."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu" and torch.backends.cpu.get_cpu_capability().startswith("AVX512"):  # may be forbidden
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False


def versions() -> dict[str, str]:
    """Versions of vcorr and what it stands on, and the device that ``auto`` picks."""
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
