"""The Triton kernels in Triton's interpreter, on a CPU. Run by test_triton.py in a process of its own, since the
interpreter must be chosen before the kernels are decorated:

    TRITON_INTERPRET=1 python -m pytest tests/kernels/interpreted.py
"""

from __future__ import annotations

import numpy
import pytest
import torch
import triton
import triton.language as tl
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from vcorr.kernels.cpu import largest as memory_cpu
from vcorr.kernels.cpu import negatives as negatives_cpu
from vcorr.kernels.cpu import reading as cpu
from vcorr.kernels.geometry import Reference, Window
from vcorr.kernels.gpu import kernels as triton_kernels
from vcorr.kernels.gpu import largest as memory_triton
from vcorr.kernels.gpu import negatives as negatives_triton
from vcorr.kernels.gpu import reading as window_triton
from vcorr.kernels.gpu import tuning
from vcorr.kernels.gpu.tuning import Tiling

pytestmark = pytest.mark.filterwarnings("ignore")  # the interpreter takes logarithms of 0 through numpy
NEEDS = (True, True, True)


@pytest.fixture(autouse=True, scope="module")
def small_tiles_and_poisoned_outputs():
    """Tiles of 16 cells; and whatever a kernel leaves unwritten is NaN."""
    patch = pytest.MonkeyPatch()
    plain = torch.empty

    def poisoned(*size, **options):
        made = plain(*size, **options)
        return made.fill_(torch.nan) if made.dtype.is_floating_point else made.fill_(-(2**30))

    patch.setattr(torch, "empty", poisoned)
    patch.setattr(tuning, "tiling", lambda *_: Tiling(4, 4, 16, 16, 16, 4))
    yield
    patch.undo()


@st.composite
def readings(draw):
    return {
        "size": (draw(st.integers(1, 2)), draw(st.integers(1, 5)), draw(st.integers(1, 7))),
        "features": draw(st.sampled_from([3, 16, 20])),
        "channels": draw(st.sampled_from([1, 3, 17])),
        "references": draw(st.integers(1, 3)),
        "radius": draw(st.sampled_from([-1, 1, 2, 12])),
        "dilation": draw(st.integers(1, 2)),
        "shape": draw(st.sampled_from(["square", "disk"])),
        "border": draw(st.sampled_from(["mask", "zeros"])),
        "masked": draw(st.booleans()),
        "restricted": draw(st.booleans()),
        "dtype": draw(st.sampled_from([torch.float32, torch.float16])),
        "top_k": draw(st.integers(1, 5)),
        "seed": draw(st.integers(0, 2**16)),
    }


def inputs_of(case):
    """Query and references, whose masked cells hold no numbers, and the same in float64, where they do."""
    generator = torch.Generator().manual_seed(case["seed"])
    size, dtype = case["size"], case["dtype"]

    def draw(channels):
        return torch.randn(*size, channels, generator=generator).to(dtype)

    dilation = 1 if case["radius"] < 0 else case["dilation"]
    window = Window(case["radius"], dilation, case["shape"], case["border"], 0.5)
    query, references = draw(case["features"]), []
    for _ in range(case["references"]):
        mask = torch.rand(*size, generator=generator) > 0.3 if case["masked"] else None
        value = draw(case["channels"])
        offset = 2 * torch.randn(*size, 2, generator=generator) if case.get("offset") else None
        offset = offset.round() if case.get("offset") == "whole" else offset
        references.append(Reference(draw(case["features"]), value, offset, mask, window))
    exact = [r._replace(key=r.key.double(), value=r.value.double()) for r in references]
    return query, [poisoned(r) for r in references], exact


def cells_to_read(case):
    """Cells of the last rows and columns, or None; of an image of a batch, none at all."""
    if not case.get("restricted"):
        return None
    read = torch.rand(case["size"], generator=torch.Generator().manual_seed(case["seed"] + 2)) > 0.5
    read[:, : case["size"][1] // 2], read[:, :, :1], read[1:] = False, False, False
    return read


def poisoned(reference):
    if reference.mask is None:
        return reference
    key, value = (x.masked_fill(~reference.mask[..., None], torch.nan) for x in (reference.key, reference.value))
    return reference._replace(key=key, value=value)


def error(got, expected):
    return float((got.double() - expected.double()).norm() / expected.double().norm().clamp(min=1e-6))


def check(case, query, references, exact):
    """Readout, logsumexp and every gradient."""
    tolerance = {torch.float32: 2e-6, torch.float16: 2e-3}[query.dtype]
    read = cells_to_read(case)
    if read is not None:
        query = query.masked_fill(~read[..., None], torch.nan)
    readout, lse = window_triton.read(query, references, read)
    expected, expected_lse = cpu.read(query.double(), exact, read)
    assert error(readout, expected) < tolerance
    torch.testing.assert_close(lse.double(), expected_lse, rtol=2e-6, atol=2e-6)  # of half types as well
    generator = torch.Generator().manual_seed(case["seed"] + 1)
    grad = torch.randn(readout.shape, generator=generator).to(query.dtype)
    grad_lse = torch.randn(lse.shape, generator=generator).masked_fill(lse == -torch.inf, 0.0)
    got = window_triton.read_backward(grad, grad_lse, query, references, readout, lse, NEEDS, read)
    wanted = cpu.read_backward(
        grad.double(), grad_lse.double(), query.double(), exact, expected, expected_lse, NEEDS, read
    )
    for a, b in zip(got, wanted, strict=True):
        assert error(a, b) < 4 * tolerance
    assert len({g.untyped_storage().data_ptr() for g in got}) == len(got)  # torch refuses outputs that share memory


def check_peaks(case, query, references, exact, top_k):
    read = cells_to_read(case)
    logits, cells = memory_triton.largest(query, references, top_k, read)
    expected, expected_cells = memory_cpu.largest(query.double(), exact, top_k, read)
    tolerance = {torch.float32: 1e-5, torch.float16: 5e-3}[query.dtype]
    torch.testing.assert_close(logits.double(), expected, rtol=tolerance, atol=tolerance)
    if query.dtype == torch.float32:  # equal logits, those of taps outside, have no cell
        torch.testing.assert_close(cells, expected_cells)


@settings(max_examples=6, deadline=None, phases=[Phase.generate], derandomize=True)
@given(case=readings())
def test_windowed_reading(case):
    query, references, exact = inputs_of(case)
    check(case, query, references, exact)
    check_peaks(case, query, references, exact, case["top_k"])


@pytest.mark.parametrize("offset", ["whole", "fractional"])
@pytest.mark.parametrize("options", [
    {"size": (1, 2, 5), "references": 2, "dilation": 1, "border": "mask", "masked": False},
    {"size": (2, 3, 4), "references": 1, "dilation": 2, "border": "zeros", "masked": True, "restricted": True},
])  # fmt: skip
def test_offsets(options, offset):
    case = {"features": 17, "channels": 2, "radius": 1, "shape": "square", "dtype": torch.float32, "seed": 5,
            "offset": offset, **options}  # fmt: skip
    query, references, exact = inputs_of(case)
    check(case, query, references, exact)
    if offset == "whole":
        check_peaks(case, query, references, exact, 3)


def test_frames_at_even_steps_are_one_launch():
    case = {"size": (1, 4, 5), "features": 3, "channels": 2, "references": 3, "radius": 1, "dilation": 1, "seed": 0,
            "shape": "square", "border": "mask", "masked": False, "dtype": torch.float32}  # fmt: skip
    query, references, _ = inputs_of(case)
    ring = [torch.stack([getattr(r, name) for r in references], 1) for name in ("key", "value")]
    slots = [r._replace(key=key, value=value)
             for r, key, value in zip(references, ring[0].unbind(1), ring[1].unbind(1), strict=True)]  # fmt: skip
    assert [len(run) for run in window_triton.runs(slots)] == [3]
    assert [len(run) for run in window_triton.runs([slots[0], slots[2], slots[1]])] == [2, 1]
    torch.testing.assert_close(window_triton.read(query, slots), window_triton.read(query, references))


@pytest.mark.parametrize("channels", [2, 15, 16, 32])
def test_labels_stay_a_distribution_in_half_precision(channels):
    case = {"size": (1, 4, 5), "features": 16, "channels": 1, "references": 2, "radius": 2, "dilation": 1, "seed": 0,
            "shape": "square", "border": "mask", "masked": False, "dtype": torch.float16}  # fmt: skip
    query, references, _ = inputs_of(case)
    chosen = torch.randint(channels, (1, 4, 5), generator=torch.Generator().manual_seed(1))
    label = torch.nn.functional.one_hot(chosen, channels).to(torch.float32)
    readout, _ = window_triton.read(query, [r._replace(value=label) for r in references])
    assert (readout.sum(-1) - 1).abs().max() < 1e-6


@triton.jit
def counting_kernel(OUT, COUNTED, TAPS: tl.int64, PART):
    tl.store(OUT, triton_kernels.taps_outside(TAPS, PART, tl.load(COUNTED)))


@pytest.mark.parametrize(("radius", "count"), [(2048, 1), (500, 17), (2**31 - 1, 3)])
def test_taps_are_counted_one_by_one(radius, count):
    """From radius 2048 on they are more than float32 can count, of several references sooner."""
    frame = torch.zeros(1, 1, 1, 1)
    run = [Reference(frame, frame, None, None, Window(radius, 1, "square", "zeros", 1.0))] * count
    taps, found = count * (2 * radius + 1) ** 2, []
    for inside in (0, taps - 1, taps) if taps < 2**62 else (0,):
        out = torch.zeros(1)
        counting_kernel[(1,)](out, torch.tensor([inside]), *window_triton.taps_of(run))
        found.append(float(out))
    assert found == ([float(numpy.float32(taps)), 1.0, 0.0] if taps < 2**62 else [pytest.approx(taps)])


def test_where_references_lie_in_memory_changes_no_bit():
    """Unrelated tensors at even distances, as an allocator may place them, and at others."""
    rng, count = numpy.random.default_rng(0), 20 * 16
    frames, results = rng.standard_normal((2, 3, count), numpy.float32), []
    query = torch.from_numpy(rng.standard_normal((1, 4, 5, 16), numpy.float32))
    for places in ((0, 1, 2), (0, 1, 3), (4, 1, 0)):
        memory = numpy.zeros((2, 5, count), numpy.float32)
        memory[:, places] = frames
        keys, values = ([torch.from_numpy(kind[place]).view(1, 4, 5, 16) for place in places] for kind in memory)
        window = Window(1, 1, "square", "mask", 1.0)
        read = [Reference(key, value, None, None, window) for key, value in zip(keys, values, strict=True)]
        assert [len(run) for run in window_triton.runs(read)] == [2, 1]
        outputs = window_triton.read(query, read)
        results.append([*outputs, *window_triton.read_backward(*outputs, query, read, *outputs, NEEDS)])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(other, results[0], strict=True))


@pytest.mark.parametrize("layout", ["one tensor", "slots of a ring"])
def test_slices_of_one_tensor_are_one_launch(layout):
    frames = torch.randn(1, 5, 4, 5, 16) if layout == "one tensor" else torch.randn(1, 9, 4, 5, 16)[:, ::2]
    read = [Reference(f, f, None, None, Window(1, 1, "square", "mask", 1.0)) for f in frames.unbind(1)]
    assert [len(run) for run in window_triton.runs(read)] == [5]


def test_nan_reaches_the_readout_and_ends():
    case = {"size": (1, 4, 4), "features": 3, "channels": 2, "references": 1, "radius": 1, "dilation": 1, "seed": 0,
            "shape": "square", "border": "mask", "masked": False, "dtype": torch.float32}  # fmt: skip
    query, references, _ = inputs_of(case)
    references[0].key[0, 0, 0] = torch.nan
    readout, lse = window_triton.read(query, references)
    seen = torch.zeros(1, 4, 4, dtype=torch.bool)
    seen[:, :2, :2] = True
    assert torch.equal(lse.isnan(), seen) and torch.equal(readout.isnan().all(-1), seen)
    logits, cells = memory_triton.largest(query, references, 3)
    assert torch.equal(logits.isnan().any(-1)[..., 0], seen) and (cells[logits.isnan()] == 0).all()


@settings(max_examples=8, deadline=None, phases=[Phase.generate], derandomize=True)
@given(
    rows=st.sampled_from([1, 17, 40]),
    bank=st.sampled_from([1, 16, 70]),
    features=st.sampled_from([3, 16, 70]),
    groups=st.none() | st.integers(1, 3),
    keep_mean=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_negatives(rows, bank, features, groups, keep_mean, seed):
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(rows, features, generator=generator)
    negatives = torch.randn(bank, features, generator=generator)
    sides = (None, None)
    if groups is not None:
        sides = tuple(torch.randint(groups, (n,), generator=generator) for n in (rows, bank))
    lse, mean = negatives_triton.logsumexp(query, negatives, *sides, 0.7, "ieee", keep_mean)
    expected, expected_mean = negatives_cpu.logsumexp(query.double(), negatives.double(), *sides, 0.7, keep_mean)
    torch.testing.assert_close(lse.double(), expected, rtol=2e-6, atol=2e-6)
    torch.testing.assert_close(mean.double(), expected_mean, rtol=2e-5, atol=2e-6)
