"""The Triton kernels without a GPU: interpreted, and compiled ahead of time for the GPUs that they are meant for."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vcorr.kernels import memory_read, negative_logsumexp, windowed_attention

SHARED_KB = {80: 163, 90: 227}
FEATURES = [("bf16", 256, "ieee"), ("bf16", 64, "ieee"), ("fp32", 256, "ieee"), ("fp32", 256, "tf32x3")]


def test_a_request_for_triton_is_not_answered_by_another():
    frame = torch.zeros(1, 4, 6, 8)
    with pytest.raises(ValueError, match="impl 'triton' needs the triton package and tensors on a GPU, got cpu"):
        windowed_attention(frame, frame, frame, radius=1, impl="triton")
    with pytest.raises(ValueError, match="impl 'triton' needs the triton package and tensors on a GPU, got cpu"):
        negative_logsumexp(frame.reshape(24, 8), frame.reshape(24, 8), impl="triton")
    with pytest.raises(ValueError, match="impl must be 'reference', 'cpu' or 'auto' with top_k, got 'triton'"):
        memory_read(frame, [frame], [frame], radius=1, top_k=2, impl="triton")


def test_interpreted():
    pytest.importorskip("triton")
    script = Path(__file__).with_name("interpreted.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(script)]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


def spilled_bytes(compiled, tmp_path):
    """Bytes of stack a thread uses, by the compiler's own report."""
    import triton

    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    cubin = tmp_path / "kernel.cubin"
    cubin.write_bytes(compiled.asm["cubin"])
    report = subprocess.run([str(tool), "-res-usage", str(cubin)], capture_output=True, text=True, check=True).stdout
    return int(re.search(r"STACK:(\d+)", report).group(1))


def compile_ahead(kernel, constants, dtype, warps, capability):
    from triton import compile as triton_compile
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    own_types = {"OUT": "*fp32", "LSE": "*fp32", "DELTA": "*fp32", "DQ": "*fp32", "DK": "*fp32", "DV": "*fp32",
                 "MEAN": "*fp32", "MASK": "*i8", "Q_GROUP": "*i64", "BANK_GROUP": "*i64", "scale": "fp32"}  # fmt: skip
    features = {"Q", "K", "V", "G", "BANK"}
    signature, attributes = {}, {}
    for place, name in enumerate(kernel.arg_names):
        if name in constants:
            signature[name] = "constexpr"
            continue
        signature[name] = own_types.get(name, f"*{dtype}" if name in features else "i32")
        aligned = name in {"C", "q_step", "bank_step"} or re.fullmatch("[qkd]_[byx]", name)
        if signature[name].startswith("*") or aligned:
            attributes[(place,)] = [["tt.divisibility", 16]]
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=attributes)
    return triton_compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": warps})


@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize(("dtype", "features", "precision"), FEATURES)
def test_compiles_within_registers_and_shared_memory(dtype, features, precision, capability, tmp_path):
    pytest.importorskip("triton")
    from vcorr.kernels.geometry import Reference, Window
    from vcorr.kernels.negatives import triton as negatives
    from vcorr.kernels.window import triton as window

    kind = {"bf16": torch.bfloat16, "fp32": torch.float32}[dtype]
    frame = torch.empty(1, 16, 16, features, dtype=kind)
    reference = Reference(frame, frame[..., :4], None, None, Window(12, 1, "square", "mask", 1.0, precision))
    tiles, bank_tiles = window.DEFAULT, negatives.DEFAULT
    forward = window.constants(frame, reference, tiles, tiles.passing)
    backward = window.backward_constants(frame, reference, tiles)
    bank = {**negatives.constants(frame[0, 0], precision), "BM": bank_tiles.queries, "BN": bank_tiles.passing,
            "HAS_GROUPS": True, "KEEP_MEAN": True}  # fmt: skip
    kernels = [
        (window.forward_kernel, forward, tiles.warps),
        (window.query_gradient_kernel, backward, tiles.warps_backward),
        (window.key_gradient_kernel, backward, tiles.warps_backward),
        (negatives.forward_kernel, bank, bank_tiles.warps),
    ]
    for kernel, constants, warps in kernels:
        compiled = compile_ahead(kernel, constants, dtype, warps, capability)
        assert compiled.metadata.shared <= 1024 * SHARED_KB[capability]
        assert spilled_bytes(compiled, tmp_path) <= 32, f"{kernel} spills"
        if precision != "ieee" or dtype == "bf16":
            assert re.search(r"wgmma|mma\.sync", compiled.asm["ptx"])
