"""Chooses the implementation, and whether a call goes through a custom operator of torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

from vcorr.kernels.geometry import Reference

LEAST_TRITON = (3, 6)
MOST_PEAKS = 64  # largest k: the k slots of a row are in registers
FARTHEST = 2**15  # cells, the largest distance, whose square is an int32

P = ParamSpec("P")
R = TypeVar("R")


def constant(function: Callable[P, R]) -> Callable[P, R]:
    """``torch.compiler.assume_constant_result`` without its import of the compiler, which costs time and memory."""
    marked: Any = function
    marked._dynamo_marked_constant = True
    return function


def resolve(impl: str, query: Tensor, read: Sequence[Reference] = (), top_k: int = 0) -> str:
    """ "cpu" or "triton"; "auto" is "triton" wherever its kernels can read what is given."""
    if impl == "cpu":
        return "cpu"
    hindrance = _hindrance(query, read, top_k)
    if impl == "triton" and hindrance:
        raise ValueError(hindrance)
    return "cpu" if hindrance else "triton"


def _hindrance(query: Tensor, read: Sequence[Reference], top_k: int) -> str:
    """The reason why the Triton kernels do not support the arguments; empty if they do."""
    if query.device.type != "cuda":
        return f"impl 'triton' needs the triton package and tensors on a GPU, got {query.device}"
    version, capability = _triton_version(), _capability(query.device.index)
    if version < LEAST_TRITON or capability < (8, 0):
        return (
            f"impl 'triton' needs triton 3.6 or later and a GPU of compute capability 8.0 or later, "
            f"got {'.'.join(map(str, version)) or 'none'} and {capability[0]}.{capability[1]}; 'cpu' runs there too"
        )
    if query.dtype == torch.float64:
        return f"impl 'triton' takes no float64, got {query.dtype}; 'cpu' takes it"
    for frame in (query, *(t for r in read for t in (r.key, r.value))):
        span = 1 + sum((n - 1) * step for n, step in zip(frame.shape[1:], frame.stride()[1:], strict=True))
        if span >= 2**31:
            return f"impl 'triton' takes frames of less than 2^31 numbers, got {span}; 'cpu' takes more"
    for r in read:
        if r.offset is not None and r.window.radius * r.window.dilation >= FARTHEST:
            return f"impl 'triton' takes windows of less than {FARTHEST} cells at an offset, got {r.window.radius}"
    if top_k > MOST_PEAKS:
        return f"impl 'triton' takes top_k up to {MOST_PEAKS}, got {top_k}; 'cpu' takes more"
    return ""


# Neither changes while a process runs; compiled code need not ask again.
@constant
def _triton_version() -> tuple[int, ...]:
    """Major and minor version of Triton; () if it cannot be imported."""
    try:
        import triton
    except ImportError:
        return ()
    return tuple(int(part) for part in triton.__version__.split(".")[:2])


@constant
def _capability(device: int) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


def bare(query: Tensor, references: Sequence[Reference]) -> bool:
    """Whether no gradient and no tracer needs a custom operator, so that its implementation may be called directly.

    torch's first call of a custom operator imports its compiler (see ``constant``).
    """
    inputs = (t for r in references for t in (r.key, r.value, r.offset, r.mask) if t is not None)
    given = [query, *inputs]
    if (
        query.is_meta
        or torch.compiler.is_compiling()
        or any(type(t) not in (Tensor, torch.nn.Parameter) for t in given)
    ):
        return False
    return not (torch.is_grad_enabled() and any(t.requires_grad for t in given))


def check_transforms(tensors: Iterable[Tensor]) -> None:
    """Refuses transforms of ``torch.func`` and forward mode: the operators lack both, and the implementations behind
    them would silently drop a tangent.
    """
    if torch.compiler.is_compiling():
        return
    for tensor in tensors:
        tangent = unpack_dual(tensor).tangent  # type: ignore[no-untyped-call]
        if torch._C._functorch.is_functorch_wrapped_tensor(tensor) or tangent is not None:
            raise NotImplementedError(
                "torch.func (vmap, grad, jvp) and forward mode are taken by impl 'reference' alone, got a tensor of "
                "theirs; the batch holds what vmap would map over, and torch.autograd differentiates"
            )
