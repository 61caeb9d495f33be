"""Products of float32 matrices on a CPU, by the faster of the two libraries that torch has there.

``torch.mm`` is MKL's, which leaves AVX-512 unused on processors of other makers than Intel. oneDNN, by which torch
convolves and multiplies half types, uses it: large products take half the time (docs/kernels.md, Processors). torch
takes float32 there of its own accord only where the whole process allows bfloat16 inside; the operator of its compiled
linear layers does so at full precision.
"""

from __future__ import annotations

import torch
from torch import Tensor

LEAST = 2**21  # multiplications from which on a call of oneDNN is no slower

CAPABILITIES: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
AMD = bool(CAPABILITIES.get("sse4a"))  # instructions that no other maker has
ONEDNN = AMD and bool(CAPABILITIES.get("avx512_f")) and hasattr(torch.ops.mkldnn, "_linear_pointwise")

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
