"""The compactness prior: where a cell of a reference is found, it is found in a few compact places (LIIR, eq. 7, 8).

The affinity A_i of query cell i over its window of one reference is likened to a mixture of k Gaussians at the cells
mu_m of its k largest weights p_m:

    Â_i(u) = sum_m pi_m 2^(-4 |u - mu_m|^2),   pi = softmax(p_1 .. p_k)

Each has a peak of 1 and half of it half a cell away, so the four neighbours have 1/16. While training the affinity,
where it is sure of itself, is drawn to its mixture (``loss``); when labels are read the mixture takes its place
(``read``). The paper's text leaves the formulas out; these are the ones that reach its scores.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from vcorr.kernels import memory_topk, windowed_attention_lse

Border = Literal["mask", "zeros"]
Form = Literal["gated", "fitted"]

GAIN = 20.0  # of the affinity in the loss, as of colours
SURE = 0.5  # training: an affinity whose largest weight is above this is drawn to its mixture
PEAKED = 0.1  # reading: one whose largest weight is above this is replaced by it
NARROWEST = 0.25  # variance of a fitted Gaussian, cells^2, at least
REACH = 2  # cells from a peak; beyond, a Gaussian is below 2^-36
TAPS = 1 << 20  # weights of the affinity that are held at a time
TILE = 8  # columns of queries that share a block of keys


@dataclass(frozen=True)
class _Window:
    """What the affinity of one pair of frames is: sizes and settings."""

    height: int
    width: int
    radius: int
    scale: float
    border: Border
    peaks: int
    form: Form

    @property
    def side(self) -> int:
        return 2 * self.radius + 1

    @property
    def columns(self) -> int:
        """Columns of queries, in whole tiles."""
        return -(-self.width // TILE) * TILE

    def inside(self, rows: range, device: torch.device) -> Tensor:
        """Whether the taps of so many rows of queries lie in the frame: [rows w side side]."""
        taps = torch.arange(-self.radius, self.radius + 1, device=device)
        y = torch.arange(rows.start, rows.stop, device=device)[:, None] + taps
        x = torch.arange(self.width, device=device)[:, None] + taps
        y, x = (y >= 0) & (y < self.height), (x >= 0) & (x < self.width)
        return y[:, None, :, None] & x[None, :, None, :]


def loss(
    query: Tensor,
    key: Tensor,
    *,
    peaks: int,
    radius: int,
    scale: float | None = None,
    border: Border = "mask",
    form: Form = "gated",
) -> Tensor:
    """How far the affinity is from its mixture: a mean over all taps of all cells (LIIR, eq. 8).

        gated:   mean_{i, u} smooth_l1(20 A_i(u) g_i, 20 Â_i(u) g_i),   g_i = [max_u A_i(u) > 1/2]
        fitted:  mean_{i, u} (A_i(u) - Â_i(u))^2

    The mixture is constant to the gradient. ``fitted``, the paper's wording, takes normal densities in place of the
    peaks above: diagonal variances from A's second moments around each mu_m, 1/4 at least, and weights in proportion to
    p. Nothing of the size of the affinity is stored: it is made a few rows at a time, together with its gradient.

    Args:
        query, key: features [b h w c] of the query frame and of one reference.
        peaks: k.
        radius: of the window, in cells.
        scale: of the logits; None is 1 / sqrt(c).
        border: taps outside the frame take no part, nor count in the mean (mask), or have logit 0 (zeros).

    Returns:
        A scalar, differentiable once in query and key.

    Raises:
        ValueError: features that are not alike, or peaks, radius or form out of range.
    """
    if query.dim() != 4 or query.shape != key.shape:
        raise ValueError(f"query and key must be [b h w c] alike, got {tuple(query.shape)} and {tuple(key.shape)}")
    if radius < 0 or not 1 <= peaks <= (2 * radius + 1) ** 2:
        raise ValueError(f"radius must be >= 0 and peaks within the window's taps, got {radius} and {peaks}")
    if form not in get_args(Form) or border not in get_args(Border):
        raise ValueError(f"form must be gated or fitted, border mask or zeros, got {form!r} and {border!r}")
    height, width, channels = query.shape[1:]
    factor = 1 / math.sqrt(channels) if scale is None else scale
    window = _Window(height, width, radius, factor, border, peaks, form)
    result: Tensor = _Loss.apply(query, key, window)  # type: ignore[no-untyped-call]
    return result


class _Loss(torch.autograd.Function):
    """Rows at a time, loss and gradient at once: the gradient of a scalar is known but for one factor."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, window: _Window) -> Tensor:
        with torch.autocast(query.device.type, enabled=False):
            kind = torch.promote_types(query.dtype, torch.float32)
            wanted = any(ctx.needs_input_grad[:2])
            total, d_query, d_key = _by_rows(query.detach().to(kind), key.detach().to(kind), window, wanted)
        if wanted:
            ctx.save_for_backward(d_query.to(query.dtype), d_key.to(key.dtype))
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        d_query, d_key = ctx.saved_tensors
        return grad * d_query, grad * d_key, None


def _by_rows(query: Tensor, key: Tensor, window: _Window, wanted: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The loss and, where wanted, its gradients."""
    batch, height, width, _ = query.shape
    reach, extra = window.radius, window.columns - width
    query = F.pad(query, (0, 0, 0, extra))
    key = F.pad(key, (0, 0, reach, reach + extra, reach, reach))
    d_query, d_key = torch.zeros_like(query), torch.zeros_like(key)
    total = query.new_zeros(())
    count = batch * height * width * window.side**2
    if window.border == "mask":
        count = batch * _taps(height, window.radius) * _taps(width, window.radius)
    step = max(1, TAPS // (batch * window.columns * window.side**2))
    for first in range(0, height, step):
        rows = range(first, min(first + step, height))
        seen = slice(rows.start, rows.stop + 2 * reach)
        with torch.set_grad_enabled(wanted):
            q = query[:, rows.start : rows.stop].requires_grad_(wanted)
            k = key[:, seen].requires_grad_(wanted)
            part = _distance(_affinity(q, k, window, rows), window, rows) / count
        total += part.detach()
        if part.requires_grad:
            dq, dk = torch.autograd.grad(part, (q, k))
            d_query[:, rows.start : rows.stop] = dq
            d_key[:, seen] += dk
    return total, d_query[:, :, :width], d_key[:, reach : reach + height, reach : reach + width]


def _taps(cells: int, radius: int) -> int:
    """Taps within the frame, along one axis, of all its cells."""
    return sum(min(i + radius, cells - 1) - max(i - radius, 0) + 1 for i in range(cells))


def _affinity(query: Tensor, key: Tensor, window: _Window, rows: range) -> Tensor:
    """Softmax over each query's window: [b rows w side * side].

    Args:
        query: [b rows columns c]. key: [b rows + 2R columns + 2R c], 0 outside the frame.
    """
    side, reach = window.side, TILE + 2 * window.radius
    batch, height, width, channels = query.shape
    tiles = query.reshape(batch, height, -1, TILE, channels)
    blocks = key.unfold(1, side, 1).unfold(2, reach, TILE)  # [b rows n c side reach]
    products = (window.scale * tiles) @ blocks.flatten(-2)
    bands = products.reshape(batch, height, -1, TILE, side, reach).transpose(-3, -2)
    # Query t of a tile sees columns t .. t + 2R of its block. Rows one longer slide the band to column 0.
    slid = F.pad(bands.flatten(-2), (0, TILE)).reshape(*bands.shape[:-1], reach + 1)[..., :side]
    logits = slid.transpose(-3, -2).reshape(batch, height, width, side, side)[:, :, : window.width]
    if window.border == "mask":
        logits = logits.masked_fill(~window.inside(rows, logits.device), -torch.inf)
    return logits.flatten(-2).softmax(-1)


def _distance(affinity: Tensor, window: _Window, rows: range) -> Tensor:
    """Sum over taps of the loss's terms; constant 0 where no affinity is sure of itself."""
    gated = window.form == "gated"
    chosen = affinity.detach().amax(-1) > SURE if gated else torch.ones_like(affinity[..., 0], dtype=torch.bool)
    if not bool(chosen.any()):
        return affinity.new_zeros(())
    sure = affinity[chosen]
    mixture = (_gaussians if gated else _fitted)(sure.detach(), window)
    if window.border == "mask":
        inside = window.inside(rows, affinity.device).flatten(-2).expand(affinity.shape)
        mixture = mixture * inside[chosen]
    if gated:
        return F.smooth_l1_loss(GAIN * sure, GAIN * mixture, reduction="sum")
    return (sure - mixture).square().sum()


def _offsets(affinity: Tensor, window: _Window) -> tuple[Tensor, Tensor, Tensor]:
    """The k largest weights [n k], and every tap's distance from each of them by axis, y and x [n k side]."""
    weights, taps = affinity.topk(window.peaks)
    axis = torch.arange(window.side, device=affinity.device)
    y, x = (axis - peak[..., None] for peak in (taps // window.side, taps % window.side))
    return weights, y.to(affinity.dtype), x.to(affinity.dtype)


def _gaussians(affinity: Tensor, window: _Window) -> Tensor:
    """The mixture of fixed width [n side * side] of affinities [n side * side]."""
    weights, y, x = _offsets(affinity, window)
    columns = torch.exp2(-4 * x.square())
    rows = weights.softmax(-1)[..., None] * torch.exp2(-4 * y.square())
    return (rows.transpose(1, 2) @ columns).flatten(1)


def _fitted(affinity: Tensor, window: _Window) -> Tensor:
    """The mixture of normal densities whose variances are fitted."""
    weights, y, x = _offsets(affinity, window)
    maps = affinity.view(-1, window.side, window.side)

    def density(distance: Tensor, marginal: Tensor) -> Tensor:
        moment = (distance.square() @ marginal[..., None]).clamp(min=NARROWEST)  # [n k 1]
        return torch.exp(-0.5 * distance.square() / moment) / torch.sqrt(2 * math.pi * moment)

    shares = weights / weights.sum(-1, keepdim=True)
    rows = shares[..., None] * density(y, maps.sum(2))
    return (rows.transpose(1, 2) @ density(x, maps.sum(1))).flatten(1)


# --- reading -------------------------------------------------------------------------------------------------------


def read(
    query: Tensor,
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    *,
    peaks: int,
    radius: int | None,
    scale: float | None = None,
    border: Border = "mask",
) -> Tensor:
    """``memory_read`` with the mixture in place of the affinity (LIIR, section 3.3): for inference.

    The affinity is one softmax over all references. Where the largest weight that a cell gives to a reference is above
    0.1, that reference's part of it is replaced by the mixture of its k largest; else it stays. References are not
    weighed against each other anew, so that the readout is no mean: with one of shares, it may sum to 1.27 a reference.

    Args:
        query: features [b h w c]. keys: features of each reference [b h w c]. values: [b h w v] of each.
        peaks: k, or as many as there are taps. radius: of the window, in cells; None is the whole frame.
        scale: of the logits; None is 1 / sqrt(c).
        border: taps outside the frame take no part (mask), or have logit 0 (zeros): a peak among these reads nothing.

    Returns:
        [b h w v].
    """
    taps = query.shape[1] * query.shape[2] if radius is None else (2 * radius + 1) ** 2
    peaks = min(peaks, taps)
    logits, cells, joint = memory_topk(query, keys, top_k=peaks, radius=radius, scale=scale, border=border)
    weights = (logits - joint[..., None, None]).exp()
    total = torch.zeros_like(values[0])
    for r, (key, value) in enumerate(zip(keys, values, strict=True)):
        readout, own = windowed_attention_lse(query, key, value, radius=radius, scale=scale, border=border)
        part = (readout * (own - joint).exp()[..., None]).to(value.dtype)
        sure = weights[..., r, 0] > PEAKED
        part[sure] = _read_peaks(weights[..., r, :][sure], cells[..., r, :][sure], sure, value, radius)
        total += part
    return total


def _read_peaks(weights: Tensor, cells: Tensor, sure: Tensor, value: Tensor, radius: int | None) -> Tensor:
    """Readout [n v] of the n cells that are ``sure`` [b h w], from the weights and cells [n k] of their peaks."""
    height, width = sure.shape[1:]
    image, row, column = (place[:, None, None] for place in sure.nonzero(as_tuple=True))
    steps = torch.arange(-REACH, REACH + 1, device=value.device)
    around = torch.cartesian_prod(steps, steps)  # [25 2]
    y = (cells // width)[..., None] + around[:, 0]  # [n k 25]
    x = (cells % width)[..., None] + around[:, 1]
    counts = (cells >= 0)[..., None] & (y >= 0) & (y < height) & (x >= 0) & (x < width)
    if radius is not None:
        counts &= ((y - row).abs() <= radius) & ((x - column).abs() <= radius)
    shares = weights.softmax(-1)[..., None] * torch.exp2(-4.0 * around.square().sum(-1)) * counts
    index = torch.where(counts, (image * height + y) * width + x, 0)
    table = value.flatten(0, 2).to(shares.dtype)
    read = F.embedding_bag(index.flatten(1), table, per_sample_weights=shares.flatten(1), mode="sum")
    return read.to(value.dtype)
