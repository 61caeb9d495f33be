"""Whether vcorr works on this machine: each part that labelling and training stand on, tried in small."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import vcorr
from vcorr.bench.propagation import Film, draw, shapes
from vcorr.errors import VcorrError
from vcorr.files import nearest_folder
from vcorr.kernels import windowed_attention
from vcorr.labels.label import MaskLabels
from vcorr.machine import cores, native_bf16, processor_name
from vcorr.media.decoder import can_decode
from vcorr.media.video import VideoWriter, open_video
from vcorr.model.encoder import Model
from vcorr.model.weights import default_weights, load_weights
from vcorr.propagation.propagator import Propagator
from vcorr.propagation.timing import trial

CODECS = ("h264", "hevc", "vp9", "av1", "mpeg4", "mjpeg", "prores")
LITTLE = 2e9  # bytes; less free space than this is said
TOLERANCE = 2e-2  # of the operators against the reference: a GPU may round features to TF32


@dataclass(frozen=True)
class Finding:
    """What was found of one part.

    Attributes:
        part: its name. ok: whether vcorr can work with it. text: what it is, or what is wrong with it.
    """

    part: str
    ok: bool
    text: str


def examine(device: torch.device) -> Iterator[Finding]:
    """Try each part and yield what was found. A part that fails does not keep the others from being tried."""
    parts: dict[str, Callable[[torch.device], str]] = {
        "vcorr": _vcorr,
        "torch": _torch,
        "device": _device,
        "threads": _threads,
        "operators": _operators,
        "triton": _triton,
        "codecs": _codecs,
        "weights": _weights,
        "disk": _disk,
        "frame": _frame,
    }
    for part, look in parts.items():
        try:
            yield Finding(part, True, look(device))
        except Exception as error:
            reason = str(error) if isinstance(error, VcorrError) else f"{type(error).__name__}: {error}"
            yield Finding(part, False, " ".join(reason.split()))


def _vcorr(device: torch.device) -> str:
    return f"{vcorr.__version__}, Python {platform.python_version()}, {platform.platform()}"


def _torch(device: torch.device) -> str:
    return f"{torch.__version__}, {torch.backends.cpu.get_cpu_capability()}"


def _device(device: torch.device) -> str:
    precision = "bfloat16 in hardware" if native_bf16(device) else "float32"
    if device.type != "cuda":
        return f"{device}: {processor_name()}, {precision}"
    free, total = torch.cuda.mem_get_info(device)
    major, minor = torch.cuda.get_device_capability(device)
    name = torch.cuda.get_device_name(device)
    return f"{device}: {name}, compute capability {major}.{minor}, {free / 1e9:.1f} of {total / 1e9:.1f} GB free"


def _threads(device: torch.device) -> str:
    count, available = torch.get_num_threads(), cores()
    many = "; more threads than cores are slow: set OMP_NUM_THREADS" if count > available else ""
    return f"{count} on {available} available cores{many}"


def _operators(device: torch.device) -> str:
    return f"agree with the reference within {_error(device, 'auto'):.0e}"


def _triton(device: torch.device) -> str:
    try:
        version = importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        version = "not installed"
    if device.type != "cuda":
        return f"{version}; a CPU does not use it"
    if version == "not installed":
        return "not installed: the GPU runs the slower forms; pip install 'vcorr[kernels]'"
    if torch.cuda.get_device_capability(device) < (8, 0):
        return f"{version}; this GPU runs the slower forms, its compute capability being below 8.0"
    return f"{version}, agrees with the reference within {_error(device, 'triton'):.0e}"


def _error(device: torch.device, impl: Any) -> float:
    """The largest difference of an implementation from the reference, on a small reading."""
    rng = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, 12, 14, 32, generator=rng).to(device) for _ in range(3))
    found = windowed_attention(query, key, value, radius=3, impl=impl)
    error = float((found - windowed_attention(query, key, value, radius=3, impl="reference")).abs().max())
    if not error < TOLERANCE:
        raise VcorrError(f"--impl {impl}", f"differs from the reference by {error:.1e}", "report it")
    return error


def _codecs(device: torch.device) -> str:
    with tempfile.TemporaryDirectory(prefix="vcorr-") as folder:
        path = Path(folder) / "film.mp4"
        with VideoWriter(path, height=48, width=64, fps=25) as writer:
            for picture in draw(Film(48, 64, frames=3)):
                writer.write(picture)
        with open_video(path) as video:
            count = sum(1 for _ in video.frames(0, len(video)))
        if count != 3:
            raise VcorrError(path, f"has {count} frames of 3 that were written", "reinstall PyAV")
    missing = [name for name in CODECS if not can_decode(name)]
    return "H.264 written and read; " + (
        f"cannot read {', '.join(missing)}" if missing else f"reads {', '.join(CODECS)}"
    )


def _weights(device: torch.device) -> str:
    weights = load_weights(None)
    if not all(bool(p.isfinite().all()) for p in weights.params.values()):
        raise VcorrError(default_weights(), "holds numbers that are NaN or infinite", "reinstall vcorr")
    count = sum(p.numel() for p in weights.params.values())
    return f"{weights.meta.get('recipe', '?')}, {count:,} parameters"


def _disk(device: torch.device) -> str:
    places = {"here": Path(), "for temporary files": Path(tempfile.gettempdir())}
    text = []
    for name, folder in places.items():
        free = shutil.disk_usage(nearest_folder(folder)).free
        closed = "" if os.access(folder, os.W_OK) else ", not writable"
        text.append(f"{free / 1e9:.1f} GB free {name}{', which is little' if free < LITTLE else ''}{closed}")
    with tempfile.TemporaryFile() as file:
        file.write(b"vcorr")
    return "; ".join(text)


def _frame(device: torch.device) -> str:
    film = Film(frames=1)
    picture, ids = next(draw(film)), shapes(film, 0)
    size = (film.height, film.width)
    propagator = Propagator(Model.of(load_weights(None), device), MaskLabels.of([ids], size, device))

    def pictures(frames: range) -> Iterator[tuple[int, np.ndarray[Any, np.dtype[np.uint8]]]]:
        yield 0, picture

    seconds = trial(propagator, pictures, {0: ids}).seconds
    return f"{film.width}x{film.height}, 1 object: {seconds:.2f} s, {1 / seconds:.2g} frames/s"
