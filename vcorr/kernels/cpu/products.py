"""Products of float32 matrices on a CPU, by the faster of the two libraries that torch has there.

``torch.mm`` is MKL's, which leaves AVX-512 unused on processors of other makers than Intel. oneDNN, by which torch
convolves and multiplies half types, uses it: large products take half the time (docs/kernels.md, Processors). torch
takes float32 there of its own accord only where the whole process allows bfloat16 inside; the operator of its compiled
linear layers does so at full precision. Batches of small products have no such operator, but convolutions have groups.

These operators of torch are its own affair, and may change: each is checked once, before its first use, on whole
numbers whose products are exact; where it is missing, fails or returns anything else, MKL takes its place.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

log = logging.getLogger("vcorr.kernels")
LEAST = 2**21  # multiplications from which on a call of oneDNN is no slower

CAPABILITIES: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
AMD = bool(CAPABILITIES.get("sse4a"))  # instructions that no other maker has
# What the processor has and torch uses, which ATEN_CPU_CAPABILITY=avx2 forbids.
AVX512 = bool(CAPABILITIES.get("avx512_f")) and torch.backends.cpu.get_cpu_capability().startswith("AVX512")
# Whether large products go to oneDNN, and batches of small ones, as convolutions by 1 x 1 whose groups are the batch:
# where that was measured.
ONEDNN = AMD and AVX512
GROUPED = AMD and AVX512

# Whether the queries of a batch of products with key rows are laid features first. They are views that overlap; laid
# cell by cell, MKL's code for Intel turns the same query again for each key row, as long as a small product takes. Its
# code for AMD does not, and turning them once costs more than it saves.
TURNED = not AMD


def grouped() -> bool:
    """Whether batches of small products go to oneDNN."""
    return GROUPED and _exact(_convolved) and _exact(_transposed)


def times(left: Tensor, right: Tensor, row: Tensor | None = None, plus: Tensor | None = None) -> Tensor:
    """left [m k] times right [k n], plus row [n] and plus [m n] where given: [m n]; without gradients."""
    size = left.shape[0] * left.shape[1] * right.shape[1]
    if ONEDNN and size >= LEAST and _of_onednn(left) and _exact(_linear) and _exact(_linear_and_more):
        return _linear(left, right, row) if plus is None else _linear_and_more(left, right, row, plus)
    product = torch.mm(left, right) if row is None else torch.addmm(row, left, right)
    return product if plus is None else product.add_(plus)


def dotted(left: Tensor, right: Tensor) -> Tensor:
    """Of each group, left [n g c] times right [g k c] turned: [n g k], new; without gradients."""
    if _of_onednn(left) and grouped():
        return _convolved(left, right)
    return torch.bmm(left.transpose(0, 1), right.transpose(1, 2)).transpose(0, 1)


def mixed(left: Tensor, right: Tensor) -> Tensor:
    """Of each group, left [n g k] times right [g k c]: [n g c], new; without gradients."""
    if _of_onednn(left) and grouped():
        return _transposed(left, right)
    return torch.bmm(left.transpose(0, 1), right).transpose(0, 1)


def _of_onednn(left: Tensor) -> bool:
    return left.dtype == torch.float32 and left.device.type == "cpu"


# --- torch's own operators ------------------------------------------------------------------------------------------


def _linear(left: Tensor, right: Tensor, row: Tensor | None) -> Tensor:
    """As ``times``: the linear layer takes x and w to x @ w.T."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise.default(left, right.t(), row, "none", [], "")
    return product


def _linear_and_more(left: Tensor, right: Tensor, row: Tensor | None, plus: Tensor) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise.binary(left, plus, right.t(), row, "add")
    return product


def _convolved(left: Tensor, right: Tensor) -> Tensor:
    """As ``dotted``."""
    cells, groups, features = left.shape
    weight = right.reshape(-1, features, 1, 1)
    product = torch.mkldnn_convolution(_as_image(left), weight, None, (0, 0), (1, 1), (1, 1), groups)
    return product.permute(0, 2, 3, 1).reshape(cells, groups, -1)


def _transposed(left: Tensor, right: Tensor) -> Tensor:
    """As ``mixed``."""
    cells, groups, _ = left.shape
    weight = right.reshape(-1, right.shape[2], 1, 1)  # turned: a transposed convolution
    transposed = torch.ops.mkldnn._convolution_transpose_pointwise.default
    no, one = (0, 0), (1, 1)
    product: Tensor = transposed(_as_image(left), weight, None, no, no, one, one, groups, "none", [], "")
    return product.permute(0, 2, 3, 1).reshape(cells, groups, -1)


def _as_image(left: Tensor) -> Tensor:
    """The cells [n g c] as pixels of one column, channels last: [1 g*c n 1]."""
    return left.reshape(1, left.shape[0], 1, -1).permute(0, 3, 1, 2)


# --- their check ----------------------------------------------------------------------------------------------------


@cache
def _exact(product: Callable[..., Tensor]) -> bool:
    """Whether an operator multiplies whole numbers exactly: 12 binary digits, which bfloat16 and tf32 would round, and
    sums below 2**24, which float32 holds in any order.
    """
    inputs, wanted = _cases()[product.__name__]
    try:
        right = torch.equal(product(*inputs).double(), wanted)
    except (RuntimeError, AttributeError, TypeError, NotImplementedError) as error:
        log.warning("torch's operator behind %s fails here (%s); matrices go another way", product.__name__, error)
        return False
    if not right:
        log.warning("torch's operator behind %s returns other products here; not used", product.__name__)
    return right


def _cases() -> dict[str, tuple[tuple[Tensor | None, ...], Tensor]]:
    """Of each operator some inputs, and what it must return, in float64."""

    def whole(first: int, most: int, *shape: int) -> Tensor:
        count = torch.Size(shape).numel()
        return (
            (torch.arange(first, first + 7919 * count, 7919, device="cpu") % (2 * most + 1) - most)
            .reshape(shape)
            .float()
        )

    left, right, row, plus = whole(1, 4095, 37, 24), whole(2, 15, 24, 43), whole(3, 4095, 43), whole(4, 4095, 37, 43)
    product = left.double() @ right.double()
    cells, keys = whole(5, 4095, 19, 3, 24), whole(6, 15, 3, 17, 24)
    return {
        "_linear": ((left, right, row), product + row),
        "_linear_and_more": ((left, right, row, plus), product + row + plus),
        "_convolved": ((cells, keys), torch.einsum("ngc,gkc->ngk", cells.double(), keys.double())),
        "_transposed": ((cells, keys.mT), torch.einsum("ngk,gkc->ngc", cells.double(), keys.mT.double())),
    }
