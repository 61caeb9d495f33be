"""The faces in compiled code whose sizes are symbols: compiled once, equal to what they are without. The values of the
k largest are summed by torch's embedding_bag, which is compiled for one size of frame.
"""

from __future__ import annotations

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from vcorr.kernels import memory_read_lse, memory_topk, negative_logsumexp, windowed_attention_lse

SIZES = [(5, 6, 7), (2, 9, 8)]  # at first no two numbers are equal, channels included: torch takes them for one symbol


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def with_gradients(outputs, leaves):
    forms = [draw(9 + i, *x.shape) for i, x in enumerate(outputs)]
    return [*outputs, *torch.autograd.grad(outputs, leaves, forms)]


def check(function, inputs_of, times=1):
    """Function of leaves and of the rest; inputs_of(size) gives both."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend=counter)
    for size in SIZES:
        leaves, rest = inputs_of(*size)
        for x in leaves:
            x.requires_grad_()
        got, wanted = (f(leaves, rest) for f in (compiled, function))
        if leaves:
            got, wanted = (with_gradients(outputs, leaves) for outputs in (got, wanted))
        torch.testing.assert_close(got, wanted)
    assert counter.frame_count == times


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"radius": 2, "dilation": 2, "border": "zeros"}, {"radius": None}])
def test_windowed_attention(options):
    check(
        lambda leaves, _: windowed_attention_lse(*leaves, **options),
        lambda *size: ([draw(i, *size, c) for i, c in enumerate((4, 4, 3))], []),
    )


def frames_of(*size):
    """A query, two keys and two values; a mask and an offset in whole cells."""
    frames = [draw(i, *size, c) for i, c in enumerate((4, 4, 4, 3, 3))]
    return frames, [draw(5, *size) > -1.0, draw(6, *size, 2).round()]


@pytest.mark.slow
def test_memory_read():
    def read(leaves, rest):
        query, *frames = leaves
        mask, offset = rest
        options = {"radius": [1, 2], "key_mask": [mask, mask], "offset": [None, offset + 0.3]}
        return memory_read_lse(query, frames[:2], frames[2:], **options)

    check(read, frames_of)


@pytest.mark.long
def test_largest_logits():
    def read(_, rest):
        query, *frames, mask, offset = rest
        options = {"radius": 1, "top_k": 4, "key_mask": [mask, None], "offset": [None, offset]}
        return memory_read_lse(query, frames[:2], frames[2:], **options)

    def largest(_, rest):
        query, *frames, mask, offset = rest
        return memory_topk(query, frames[:2], radius=1, top_k=4, key_mask=[mask, None], offset=[None, offset])

    def inputs_of(*size):
        frames, rest = frames_of(*size)
        return [], [*frames, *rest]

    check(largest, inputs_of)
    check(read, inputs_of, times=len(SIZES))


def test_negatives():
    def mass(leaves, rest):
        negatives, own, others = rest
        return [negative_logsumexp(*leaves, negatives, query_group=own, negative_group=others)]

    def inputs_of(batch, height, width):
        rows, bank = height * width, 7 * batch
        return [draw(0, rows, 4)], [draw(1, bank, 4), torch.arange(rows) % 3, torch.arange(bank) % 3]

    check(mass, inputs_of)
