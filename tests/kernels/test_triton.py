"""The Triton kernels without a GPU: interpreted, and compiled ahead of time for the GPUs that they are meant for."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from vcorr.kernels import dispatch, memory_read, negative_logsumexp, windowed_attention
from vcorr.kernels.geometry import Reference, Window


def test_a_request_for_triton_is_not_answered_by_another():
    frame = torch.zeros(1, 4, 6, 8)
    with pytest.raises(ValueError, match="impl 'triton' needs the triton package and tensors on a GPU, got cpu"):
        windowed_attention(frame, frame, frame, radius=1, impl="triton")
    with pytest.raises(ValueError, match="impl 'triton' needs the triton package and tensors on a GPU, got cpu"):
        negative_logsumexp(frame.reshape(24, 8), frame.reshape(24, 8), impl="triton")
    with pytest.raises(ValueError, match="impl 'triton' needs the triton package and tensors on a GPU, got cpu"):
        memory_read(frame, [frame], [frame], radius=1, top_k=2, impl="triton")


@pytest.fixture
def on_gpu(monkeypatch):
    """Frames on a GPU that is not there, with the versions of its surroundings."""

    def make(version=(3, 9), capability=(9, 0), shape=(1, 4, 6, 8), dtype=torch.float32, radius=1, offset=False):
        monkeypatch.setattr(dispatch, "_triton_version", lambda: version)
        monkeypatch.setattr(dispatch, "_capability", lambda device: capability)
        with FakeTensorMode(allow_non_fake_inputs=True):
            frame = torch.empty(shape, dtype=dtype, device="cuda")
            moved = torch.empty(*shape[:3], 2, device="cuda") if offset else None
        return frame, [Reference(frame, frame, moved, None, Window(radius, 1, "square", "mask", 1.0))]

    return make


def test_auto_is_triton_on_a_gpu_that_can(on_gpu):
    for capability in ((8, 0), (10, 0)):
        frame, references = on_gpu(version=(3, 6), capability=capability, offset=True)
        assert dispatch.resolve("auto", frame, references, top_k=10) == "triton"
    assert dispatch.resolve("triton", frame, references) == "triton"
    assert dispatch.resolve("cpu", frame, references) == "cpu"
    assert dispatch.resolve("auto", torch.zeros(1, 4, 6, 8)) == "cpu"


@pytest.mark.parametrize(("given", "top_k", "rule"), [
    ({"version": ()}, 0, r"needs triton 3.6 or later and a GPU of compute capability 8.0 or later, got none and 9.0"),
    ({"version": (3, 5)}, 0, "got 3.5 and 9.0; 'cpu' runs there too"),
    ({"capability": (7, 5)}, 0, "got 3.9 and 7.5; 'cpu' runs there too"),
    ({"dtype": torch.float64}, 0, "takes no float64, got torch.float64; 'cpu' takes it"),
    ({"shape": (1, 2**12, 2**12, 2**7)}, 0, r"takes frames of less than 2\^31 numbers, got 2147483648"),
    ({"offset": True, "radius": 2**15}, 0, "takes windows of less than 32768 cells at an offset, got 32768"),
    ({}, 65, "takes top_k up to 64, got 65; 'cpu' takes more"),
])  # fmt: skip
def test_what_triton_cannot_read(on_gpu, given, top_k, rule):
    frame, references = on_gpu(**given)
    with pytest.raises(ValueError, match=f"impl 'triton' .*{rule}"):
        dispatch.resolve("triton", frame, references, top_k)
    assert dispatch.resolve("auto", frame, references, top_k) == "cpu"


@pytest.mark.slow
def test_kernels_import_without_the_rest_and_without_triton():
    """In a process where nothing but torch and what torch needs may be imported."""
    script = """
import sys, torch
refused = {"triton", "av", "kornia", "typer", "pydantic", "imageio", "PIL", "safetensors", "rich"}
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in refused:
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
from vcorr.kernels import memory_read
frame = torch.ones(1, 3, 4, 2)
assert torch.equal(memory_read(frame, [frame], [frame], radius=1), frame)
own = {name for name in sys.modules if name.split(".")[0] == "vcorr"}
assert all(name == "vcorr" or name.startswith("vcorr.kernels") for name in own), own
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[2])


@pytest.mark.long
def test_interpreted():
    triton = pytest.importorskip("triton")
    triton_version, numpy_version = (tuple(map(int, m.__version__.split(".")[:2])) for m in (triton, numpy))
    if triton_version == (3, 6) and numpy_version >= (2, 4):
        pytest.skip("the interpreter of triton 3.6 needs numpy below 2.4")
    script = Path(__file__).with_name("interpreted.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(script)]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("features", [64, 256])
def test_compiles_within_registers_and_shared_memory(features, capability):
    pytest.importorskip("triton")
    from tests.kernels import ahead

    for launch in ahead.launches_of(ahead.Case(torch.bfloat16, features), capability):
        wrong = ahead.problem(launch, ahead.compiled(launch, capability), capability)
        assert not wrong, f"{launch.kernel.fn.__name__} {wrong}"


def test_float32_as_bfloat16_is_rounded_before_the_launch():
    pytest.importorskip("triton")
    from tests.kernels import ahead

    frame = torch.zeros(1, 4, 5, 16)
    references = [Reference(frame, frame, None, None, Window(1, 1, "square", "mask", 1.0, "bf16"))] * 2
    with ahead.recorded(90) as launches:
        readout, lse = ahead.window.read(frame, references)
        gradients = ahead.window.read_backward(frame, lse, frame, references, readout, lse, (True, True, True))
        mean = ahead.negatives.logsumexp(frame[0, 0], frame[0, 1], None, None, 1.0, "bf16", True)[1]
    assert len(launches) == 4
    assert all(given.dtype == torch.bfloat16 for launch in launches for given in launch.arguments[:2])
    assert len(gradients) == 5
    assert all(result.dtype == torch.float32 for result in (readout, lse, mean, *gradients))


def test_the_report_tells_spills_and_too_much_memory():
    pytest.importorskip("triton")
    from tests.kernels import ahead

    (launch, *_) = ahead.launches_of(ahead.Case(torch.bfloat16, 256), 90)
    fine = ahead.Report(registers=128, stack=0, shared=99 * 1024, assembly="wgmma")
    assert not ahead.problem(launch, fine, 86)
    for wrong, text in (
        ({"stack": 8}, "spills"),
        ({"shared": 100 * 1024}, "shared"),
        ({"assembly": ""}, "tensor cores"),
    ):
        assert text in ahead.problem(launch, dataclasses.replace(fine, **wrong), 86)
