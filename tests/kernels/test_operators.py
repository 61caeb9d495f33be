"""The operators as torch sees them: registration, compilation, autocast, what is saved; and what the faces refuse."""

from __future__ import annotations

import doctest
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.autograd import forward_ad

from tests.callers import STATES
from vcorr.kernels import (
    faces,
    label_query_mask,
    memory_read,
    memory_read_lse,
    memory_topk,
    negative_logsumexp,
    windowed_attention,
    windowed_attention_lse,
)
from vcorr.kernels.ops import negative_logsumexp as negatives_op
from vcorr.kernels.ops import read, read_backward, topk


def draw(seed, *shape, dtype=torch.float32):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def arguments(*, read=None, offset=None, mask=None, gradient=True):
    keys = [draw(i, 1, 5, 7, 4).requires_grad_(gradient) for i in (1, 2)]
    values = [draw(i, 1, 5, 7, 3).requires_grad_(gradient) for i in (3, 4)]
    query = draw(0, 1, 5, 7, 4).requires_grad_(gradient)
    settings = [1, 2], [1, 1], [0.5, 0.5], "square", "mask", "ieee"
    return query, read, keys, values, [offset, None], [mask, None], *settings, "cpu"


@pytest.mark.slow
@pytest.mark.parametrize("gradient", [True, False])
def test_opcheck_read(gradient):
    torch.library.opcheck(read, arguments(gradient=gradient))
    torch.library.opcheck(read, arguments(gradient=gradient, mask=torch.ones(1, 5, 7, dtype=torch.bool)))
    torch.library.opcheck(read, arguments(gradient=gradient, offset=torch.zeros(1, 5, 7, 2)))
    torch.library.opcheck(read, arguments(gradient=gradient, read=FIRST))


FIRST = torch.arange(35).view(1, 5, 7) < 26


@pytest.mark.parametrize(
    ("alone", "given"),
    [
        *((alone, {}) for alone in (None, 0, 1, 2)),
        *((None, given) for given in ({"mask": FIRST}, {"offset": torch.ones(1, 5, 7, 2)}, {"read": FIRST})),
    ],
)
def test_opcheck_read_backward(alone, given):
    inputs = arguments(gradient=False, **given)
    readout, lse = read(*inputs)
    needs = [alone in (None, i) for i in range(3)]
    torch.library.opcheck(read_backward, (draw(5, *readout.shape), draw(6, *lse.shape), readout, lse, needs, *inputs))


@pytest.mark.slow
def test_opcheck_topk_and_negatives():
    for given in (None, FIRST):
        query, read_, keys, _, *settings = arguments(gradient=False, read=given)
        for joint in (False, True):
            torch.library.opcheck(topk, (3, joint, query, read_, keys, [], *settings))
    query = draw(0, 6, 4).requires_grad_()
    for keep in (True, False):
        torch.library.opcheck(
            negatives_op, (query if keep else query.detach(), draw(1, 9, 4), None, None, 1.0, "ieee", keep, "cpu")
        )


def test_compiles_without_a_break():
    def loss(query, key, value):
        readout, lse = windowed_attention_lse(query, key, value, radius=1)
        inter = negative_logsumexp(query.reshape(-1, 4), key.detach().reshape(-1, 4)).reshape(lse.shape)
        return (readout * (lse - inter).sigmoid()[..., None]).square().sum()

    leaves = [draw(i, 1, 5, 7, c).requires_grad_() for i, c in enumerate((4, 4, 3))]
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(
        torch.autograd.grad(compiled(*leaves), leaves), torch.autograd.grad(loss(*leaves), leaves)
    )


@pytest.mark.slow
def test_compiles_with_a_scale_that_changes():
    def both(query, key, value, scale):
        read = windowed_attention(query, key, value, radius=1, scale=scale)
        return read, negative_logsumexp(query.flatten(0, 2), key.flatten(0, 2), scale=scale)

    compiled = torch.compile(both, fullgraph=True, backend="aot_eager")
    inputs = [draw(i, 1, 5, 7, c) for i, c in enumerate((4, 4, 3))]
    for scale in (0.5, 0.7, 3.0):
        torch.testing.assert_close(compiled(*inputs, scale), both(*inputs, scale))


def test_shapes_without_data():
    query, key, value = (torch.empty(2, 5, 7, c, device="meta") for c in (4, 4, 3))
    assert windowed_attention(query, key, value.bool(), radius=1).dtype == torch.float32
    assert memory_read(query, [key], [value], radius=1, top_k=2).shape == (2, 5, 7, 3)
    assert negative_logsumexp(query.flatten(0, 2), key.flatten(0, 2)).shape == (70,)


@pytest.mark.slow
def test_compiles_reading_without_gradient():
    keys, values, query = draw(0, 1, 2, 5, 7, 4), draw(1, 1, 2, 5, 7, 3), draw(2, 1, 5, 7, 4)

    def peaks(query, keys, values):
        return memory_read(query, keys, values, radius=1, top_k=3), memory_topk(query, keys, top_k=2, radius=1)[0]

    compiled = torch.compile(peaks, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(query, keys, values), peaks(query, keys, values))


def test_without_gradients_nothing_is_saved():
    leaves = [draw(i, 1, 5, 7, c).requires_grad_() for i, c in enumerate((4, 4, 3))]
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(saved.append, lambda x: x), torch.no_grad():
        assert windowed_attention(*leaves, radius=1).grad_fn is None
        assert negative_logsumexp(leaves[0].reshape(-1, 4), draw(9, 5, 4)).grad_fn is None
    assert saved == []


def test_only_inputs_and_outputs_are_saved():
    leaves = [draw(i, 1, 20, 30, c).requires_grad_() for i, c in enumerate((4, 4, 3))]
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x.numel()), lambda x: x):
        windowed_attention(*leaves, radius=4)
    assert sum(saved) == 600 * (4 + 4 + 3 + 3 + 1)


@pytest.mark.parametrize("impl", ["reference", "cpu"])
def test_autocast_does_not_round_inside(impl):
    query, key, value = (draw(i, 1, 5, 7, c) for i, c in enumerate((4, 4, 3)))
    plain = windowed_attention_lse(query, key, value, radius=1, impl=impl)
    bank = negative_logsumexp(query.reshape(-1, 4), key.reshape(-1, 4), impl=impl)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = windowed_attention_lse(query, key, value, radius=1, impl=impl)
        cast_bank = negative_logsumexp(query.reshape(-1, 4), key.reshape(-1, 4), impl=impl)
    torch.testing.assert_close((*cast, cast_bank), (*plain, bank), rtol=0, atol=0)


def test_examples_of_the_docstrings():
    failed, tried = doctest.testmod(faces)
    assert tried > 0 and failed == 0


WITHOUT_GRADIENT = """
import sys, torch
from vcorr.kernels import memory_read
frame, label = torch.randn(1, 9, 11, 8), torch.randn(1, 9, 11, 2)
for top_k in (None, 3):
    memory_read(frame, [frame], [label], radius=2, top_k=top_k)
print("torch._dynamo" in sys.modules)
"""


@pytest.mark.slow
def test_reading_without_gradients_leaves_the_compiler_alone():
    done = subprocess.run([sys.executable, "-c", WITHOUT_GRADIENT], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_reading_is_the_same_with_and_without_gradients():
    frame, label = torch.randn(1, 9, 11, 8), torch.randn(1, 9, 11, 2)
    plain = windowed_attention(frame, frame, label, radius=2)
    assert torch.equal(plain, windowed_attention(frame, frame, label.requires_grad_(), radius=2))


GOOD = {"query": torch.zeros(1, 4, 6, 8), "key": torch.zeros(1, 4, 6, 8), "value": torch.zeros(1, 4, 6, 2), "radius": 1}


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (
            {"query": torch.zeros(4, 6, 8)},
            ValueError,
            r"query must be \[b h w c\] .* got shape \(4, 6, 8\)",
        ),
        ({"query": [1]}, TypeError, "query must be a tensor, got list"),
        ({"key": torch.zeros(1, 4, 6, 9)}, ValueError, r"key must have shape \(1, 4, 6, 8\) .* got \(1, 4, 6, 9\)"),
        ({"key": torch.zeros(1, 4, 6, 8).double()}, TypeError, "key must have the type of query, torch.float32"),
        (
            {"key": torch.zeros(1, 4, 6, 8, device="meta")},
            ValueError,
            "key must be on the device of query",
        ),
        ({"value": torch.zeros(1, 4, 5, 2)}, ValueError, r"value must have shape \(1, 4, 6, 2\) .* got \(1, 4, 5, 2\)"),
        ({"value": torch.zeros(1, 4, 6, 0)}, ValueError, r"value must be \[b h w v\] with no axis but b of length 0"),
        ({"value": torch.zeros(1, 4, 6, 2, dtype=torch.complex64)}, TypeError, "values must be real"),
        ({"query": torch.zeros(1, 4, 6, 8).long()}, TypeError, "query must be floating point, got torch.int64"),
        ({"radius": -1}, ValueError, "radius must be at least 0, got -1"),
        ({"radius": 1.5}, TypeError, "radius must be a whole number, got 1.5"),
        ({"radius": 0, "window": "disk"}, ValueError, "radius must be at least 1, got 0"),
        ({"dilation": 0}, ValueError, "dilation must be at least 1, got 0"),
        ({"radius": None, "dilation": 2}, ValueError, "dilation must be 1 where radius is None"),
        ({"radius": 2**31}, ValueError, "radius must be at most 2147483647, got 2147483648"),
        ({"dilation": 2**63}, ValueError, "dilation must be at most 2147483647"),
        ({"scale": float("nan")}, ValueError, "scale must be finite, .* got nan"),
        ({"scale": 10**400}, ValueError, r"scale must be finite, at most 2\^100 in size"),
        ({"scale": True}, TypeError, "scale must be a number, got bool"),
        ({"scale": torch.tensor(0.5)}, TypeError, "scale must be a number, got Tensor; .* multiplies query"),
        ({"query": torch.zeros(1, 4, 6, 8).to_sparse()}, TypeError, "query must be dense and not quantized"),
        (
            {"query": torch.zeros(1, 4, 6, 8).to(torch.float8_e5m2)},
            TypeError,
            "query must be float16, .* got torch.float8",
        ),
        (
            {"value": torch.zeros(1, 4, 6, 2).to(torch.float8_e5m2)},
            TypeError,
            "value must be float16, .* got torch.float8",
        ),
        ({"border": "clamp"}, ValueError, "border must be one of 'mask', 'zeros', got 'clamp'"),
        ({"window": "hexagon"}, ValueError, "window must be one of 'square', 'disk', got 'hexagon'"),
        ({"precision": "fp8"}, ValueError, "precision must be one of 'ieee', .* got 'fp8'"),
        ({"impl": "fast"}, ValueError, "impl must be one of 'auto', .* got 'fast'"),
        ({"offset": torch.zeros(1, 4, 6, 3)}, ValueError, r"offset must have shape \(1, 4, 6, 2\)"),
        ({"offset": (0, 0)}, TypeError, "offset must be a tensor, got tuple"),
        ({"offset": np.zeros((1, 4, 6, 2))}, TypeError, "offset must be a tensor, got ndarray"),
        ({"offset": torch.zeros(1, 4, 6, 2).to(torch.uint16)}, TypeError, "offset must be real, .* got torch.uint16"),
        ({"offset": torch.zeros(1, 4, 6, 2).requires_grad_()}, ValueError, "offset must not require gradients"),
        ({"offset": torch.full((1, 4, 6, 2), torch.nan)}, ValueError, "offset must be finite"),
        ({"offset": torch.zeros(1, 4, 6, 2), "radius": None}, ValueError, "offset must be None where radius is None"),
        ({"key_mask": True}, TypeError, "key_mask must be a tensor, got bool"),
        ({"key_mask": torch.zeros(1, 4, 6)}, TypeError, "key_mask must be boolean, .* got torch.float32"),
        ({"query_mask": torch.zeros(1, 4, 6)}, TypeError, "query_mask must be boolean, .* got torch.float32"),
        ({"query_mask": torch.zeros(1, 6, 4).bool()}, ValueError, r"query_mask must have shape \(1, 4, 6\)"),
        ({"query_mask": [[[True]]]}, TypeError, "query_mask must be a tensor, got list"),
        ({"key_mask": torch.zeros(1, 4, 5).bool()}, ValueError, r"key_mask must have shape \(1, 4, 6\)"),
    ],
)
def test_errors_say_the_rule_and_what_came(change, error, text):
    with pytest.raises(error, match=text):
        windowed_attention(**{**GOOD, **change})


@pytest.mark.parametrize("impl", ["reference", "cpu"])
@pytest.mark.parametrize(
    "options",
    [
        {"radius": 2, "border": "zeros", "window": "disk", "dilation": 2},
        {"radius": None},
        {"radius": 1, "offset": torch.zeros(0, 2, 4, 6, 2)},
        {"radius": 1, "offset": torch.zeros(0, 2, 4, 6, 2).long(), "key_mask": torch.ones(0, 2, 4, 6).bool()},
    ],
    ids=",".join,
)
def test_a_batch_of_no_image_is_read(options, impl):
    """As torch's own operators take it: a filter may leave none."""
    query, *frames = [torch.zeros(0, 4, 6, 8, dtype=torch.bfloat16) for _ in range(3)]
    logits, cells, lse = memory_topk(query, frames, top_k=2, **options, impl=impl)
    assert logits.shape == cells.shape == (0, 4, 6, 2, 2) and lse.shape == (0, 4, 6)
    assert memory_read(query, frames, frames, top_k=3, **options, impl=impl).shape == (0, 4, 6, 8)
    leaves = [t.requires_grad_() for t in (query, *frames)]
    values = [torch.zeros(0, 4, 6, 3, requires_grad=True) for _ in frames]
    readout, lse = memory_read_lse(query, frames, values, **options, impl=impl)
    assert (readout.shape, readout.dtype, lse.shape) == ((0, 4, 6, 3), torch.float32, (0, 4, 6))
    for leaf, gradient in zip([*leaves, *values], gradients([readout, lse], [*leaves, *values]), strict=True):
        assert (gradient.shape, gradient.dtype) == (leaf.shape, leaf.dtype)
    mass = negative_logsumexp(query.flatten(0, 2), torch.zeros(5, 8, dtype=torch.bfloat16), impl=impl)
    assert mass.shape == (0,) and torch.autograd.grad(mass.sum(), query)[0].shape == query.shape


def gradients(outputs, leaves):
    return torch.autograd.grad(sum(output.sum() for output in outputs), leaves)


def test_a_batch_of_no_image_compiles_without_a_break():
    empty = torch.zeros(0, 4, 6, 8)
    compiled = torch.compile(lambda x: windowed_attention(x, x, x, radius=1), fullgraph=True, backend="eager")
    assert compiled(empty).shape == empty.shape


@pytest.mark.parametrize("name", ["float64", "float16", "device", "autocast", "deterministic"])
@pytest.mark.parametrize("impl", ["reference", "cpu"])
@pytest.mark.parametrize(
    "options",
    [{"radius": 2, "border": "zeros", "window": "disk", "dilation": 2}, {"radius": None}, {"radius": 1, "offset": 1}],
    ids=",".join,
)
def test_the_state_of_the_caller_changes_no_number(name, impl, options):
    if "offset" in options:
        options = options | {"offset": torch.stack([torch.full((1, 3, 4, 2), step) for step in (0.5, -1.25)], 1)}

    def read(query, *frames, values):
        leaves = [t.clone().requires_grad_() for t in (query, *frames, *values)]
        outputs = memory_read_lse(leaves[0], leaves[1:3], leaves[3:], **options, impl=impl)
        top_k = memory_topk(query, frames, top_k=2, **options | {"offset": None}, impl=impl)
        return [
            *outputs,
            *gradients(outputs, leaves),
            *top_k,
            negative_logsumexp(query[0, 0], frames[0][0, 1], impl=impl),
        ]

    inputs = [draw(i, 1, 3, 4, 8) for i in range(3)]
    values = [draw(i, 1, 3, 4, 3) for i in range(3, 5)]
    wanted = read(*inputs, values=values)
    with STATES[name]():
        got = read(*inputs, values=values)
    assert all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(got, wanted, strict=True))


def test_whole_numbers_and_scales_may_be_numpys():
    frame = torch.eye(24).reshape(1, 4, 6, 24)
    wanted = memory_read(frame, [frame], [frame], radius=[2], dilation=2, top_k=3, scale=0.5)
    given = {"radius": [np.int64(2)], "dilation": np.uint8(2), "top_k": np.int16(3), "scale": np.float32(0.5)}
    assert torch.equal(memory_read(frame, [frame], [frame], **given), wanted)
    wanted = windowed_attention(frame, frame, frame, radius=1)
    assert torch.equal(windowed_attention(frame, frame, frame, radius=np.array([1, 2])[0]), wanted)
    with pytest.raises(TypeError, match="radius must be a whole number"):
        windowed_attention(frame, frame, frame, radius=np.True_)
    with pytest.raises(ValueError, match="radius must be at least 0, got -1"):
        windowed_attention(frame, frame, frame, radius=np.int64(-1))


def test_options_that_no_face_has_are_refused_by_name():
    frame = GOOD["query"]
    with pytest.raises(TypeError, match="windowed_attention takes no option 'raduis'; did you mean 'radius'"):
        windowed_attention(frame, frame, frame, raduis=1)
    with pytest.raises(TypeError, match=r"memory_read takes no option 'heads'; it takes .*radius"):
        memory_read(frame, [frame], [frame], radius=1, heads=2)
    with pytest.raises(TypeError, match="memory_topk needs radius=R"):
        memory_topk(frame, [frame], top_k=1)
    with pytest.raises(TypeError, match="label_query_mask takes no option 'border'"):
        label_query_mask([frame], radius=1, border="mask")
    with pytest.raises(TypeError, match="negative_logsumexp takes no option 'radius'; it takes precision, impl"):
        negative_logsumexp(frame[0, 0], frame[0, 0], radius=1)


def test_errors_of_several_references():
    query, frames = torch.zeros(1, 4, 6, 8), [torch.zeros(1, 4, 6, 8)] * 3
    for given, name in ((None, "NoneType"), (3, "int"), (torch.zeros(1).numpy(), "ndarray")):
        with pytest.raises(TypeError, match=rf"keys must be \[b r h w c\] or a sequence of .*, got {name}"):
            memory_topk(query, given, radius=1, top_k=1)
        with pytest.raises(TypeError, match=rf"values must be \[b r h w c\] or a sequence of .*, got {name}"):
            memory_read(query, frames, given, radius=1)
    with pytest.raises(TypeError, match="keys must be a tensor, got ndarray"):
        memory_topk(query, [query.numpy()], radius=1, top_k=1)
    with pytest.raises(TypeError, match="offset must be a tensor, or a sequence of tensors and None, got int"):
        memory_read(query, frames, frames, radius=1, offset=3)
    with pytest.raises(ValueError, match="keys must hold at least one reference, got none"):
        memory_read(query, [], [], radius=1)
    with pytest.raises(ValueError, match="values must hold one for each of 3 references, got 2"):
        memory_read(query, frames, frames[:2], radius=1)
    with pytest.raises(ValueError, match=r"keys must be \[b r h w c\] or a sequence"):
        memory_read(query, query, query, radius=1)
    with pytest.raises(ValueError, match="dilation must be one, or one for each of 3 references, got 2"):
        memory_read(query, frames, frames, radius=1, dilation=[1, 2])
    with pytest.raises(ValueError, match="scale must be one, or one for each of 3 references, got 2"):
        memory_read(query, frames, frames, radius=1, scale=[1.0, 2.0])
    with pytest.raises(ValueError, match="key_mask must hold one for each of 3 references, got 1"):
        memory_read(query, frames, frames, radius=1, key_mask=[None])
    with pytest.raises(TypeError, match="values must be real and of one type"):
        memory_read(query, frames, [*frames[:2], frames[2].double()], radius=1)


TRANSFORMED = {
    "reading": lambda x: windowed_attention(x, x, x, radius=1),
    "references": lambda x: memory_read(x.detach(), [x], [x], radius=1, top_k=2),
    "largest": lambda x: memory_topk(x, [x], radius=1, top_k=2)[0],
    "bank": lambda x: negative_logsumexp(x.flatten(0, 2), x.detach().flatten(0, 2)),
}


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")  # torch's own, for forward mode
@pytest.mark.parametrize("name", TRANSFORMED)
def test_transforms_are_refused_rather_than_wrong(name):
    frame, call = draw(0, 1, 4, 5, 3), TRANSFORMED[name]
    for transformed in (
        lambda: torch.func.vmap(call)(frame[None]),
        lambda: torch.func.grad(lambda x: call(x).sum())(frame),
        lambda: torch.func.jvp(call, (frame,), (frame,)),
    ):
        with pytest.raises(NotImplementedError, match="taken by impl 'reference' alone"):
            transformed()
    with forward_ad.dual_level(), pytest.raises(NotImplementedError, match="forward mode"):
        call(forward_ad.make_dual(frame, frame))


def test_the_reference_takes_transforms():
    frame = draw(0, 1, 4, 5, 3)
    plain = windowed_attention(frame, frame, frame, radius=1, impl="reference")
    mapped = torch.func.vmap(lambda x: windowed_attention(x, x, x, radius=1, impl="reference"))(frame[None])
    torch.testing.assert_close(mapped[0], plain)


@pytest.mark.parametrize("name", ["reading", "bank"])
def test_second_derivatives_are_refused_rather_than_wrong(name):
    frame = draw(0, 1, 4, 5, 3).requires_grad_()
    loss = TRANSFORMED[name](frame).sum() + frame.pow(3).sum()
    (grad,) = torch.autograd.grad(loss, frame, create_graph=True)
    with pytest.raises(RuntimeError, match="no autograd formula was registered"):
        torch.autograd.grad(grad.sum(), frame)
