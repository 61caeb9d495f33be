"""Products of float32 matrices on a CPU, by the faster of the two libraries that torch has there.

``torch.mm`` is MKL's, which leaves AVX-512 unused on processors of other makers than Intel. oneDNN, by which torch
convolves and multiplies half types, uses it: large products take half the time (docs/kernels.md, Processors). torch
takes float32 there of its own accord only where the whole process allows bfloat16 inside; the operator of its compiled
linear layers does so at full precision. Batches of small products have no such operator, but convolutions have groups.
"""

from __future__ import annotations

import torch
from torch import Tensor

LEAST = 2**21  # multiplications from which on a call of oneDNN is no slower

CAPABILITIES: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
AMD = bool(CAPABILITIES.get("sse4a"))  # instructions that no other maker has
# What the processor has and torch uses, which ATEN_CPU_CAPABILITY=avx2 forbids.
AVX512 = bool(CAPABILITIES.get("avx512_f")) and torch.backends.cpu.get_cpu_capability().startswith("AVX512")
ONEDNN = AMD and AVX512 and hasattr(torch.ops.mkldnn, "_linear_pointwise")

# Whether batches of small products go to oneDNN, as convolutions by 1 x 1 whose groups are the batch.
GROUPED = AVX512 and hasattr(torch.ops.mkldnn, "_convolution_transpose_pointwise")

# Whether the queries of a batch of products with key rows are laid features first. They are views that overlap; laid
# cell by cell, MKL's code for Intel turns the same query again for each key row, as long as a small product takes. Its
# code for AMD does not, and turning them once costs more than it saves.
TURNED = not AMD


def times(left: Tensor, right: Tensor, row: Tensor | None = None, plus: Tensor | None = None) -> Tensor:
    """left [m k] times right [k n], plus row [n] and plus [m n] where given: [m n]; without gradients."""
    size = left.shape[0] * left.shape[1] * right.shape[1]
    if ONEDNN and size >= LEAST and left.dtype == torch.float32 and left.device.type == "cpu":
        linear = torch.ops.mkldnn._linear_pointwise  # x and w to x @ w.T
        if plus is None:
            product: Tensor = linear.default(left, right.t(), row, "none", [], "")
        else:
            product = linear.binary(left, plus, right.t(), row, "add")
        return product
    product = torch.mm(left, right) if row is None else torch.addmm(row, left, right)
    return product if plus is None else product.add_(plus)


def dotted(left: Tensor, right: Tensor) -> Tensor:
    """Of each group, left [n g c] times right [g k c] turned: [n g k], new; without gradients."""
    if not _by_groups(left):
        return torch.bmm(left.transpose(0, 1), right.transpose(1, 2)).transpose(0, 1)
    cells, groups, features = left.shape
    weight = right.reshape(-1, features, 1, 1)
    product = torch.mkldnn_convolution(_as_image(left), weight, None, (0, 0), (1, 1), (1, 1), groups)
    return product.permute(0, 2, 3, 1).reshape(cells, groups, -1)


def mixed(left: Tensor, right: Tensor) -> Tensor:
    """Of each group, left [n g k] times right [g k c]: [n g c], new; without gradients."""
    if not _by_groups(left):
        return torch.bmm(left.transpose(0, 1), right).transpose(0, 1)
    cells, groups, _ = left.shape
    weight = right.reshape(-1, right.shape[2], 1, 1)  # turned: a transposed convolution
    transposed = torch.ops.mkldnn._convolution_transpose_pointwise.default
    no, one = (0, 0), (1, 1)
    product: Tensor = transposed(_as_image(left), weight, None, no, no, one, one, groups, "none", [], "")
    return product.permute(0, 2, 3, 1).reshape(cells, groups, -1)


def _by_groups(left: Tensor) -> bool:
    return GROUPED and left.dtype == torch.float32 and left.device.type == "cpu"


def _as_image(left: Tensor) -> Tensor:
    """The cells [n g c] as pixels of one column, channels last: [1 g*c n 1]."""
    return left.reshape(1, left.shape[0], 1, -1).permute(0, 3, 1, 2)
