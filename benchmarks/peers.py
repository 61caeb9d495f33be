"""Other ways to read through windows, each as its users would write it, to stand beside ``vcorr.kernels``."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from benchmarks import bank_peers
from vcorr.bench.cases import Case, Setting
from vcorr.bench.operators import Method, Peer

TILE = (8, 8)  # of attention on tiles
BLOCK = (8, 16)  # of flex_attention: a tile is one of its blocks of 128
SLOW = 5e9  # products of single numbers, which take seconds on a CPU
GAIN = 4  # by which those of matrices are faster at least


def peers_of(setting: Setting, full: bool) -> dict[str, Peer]:
    """Every peer of a case by name; ``full``: those that take long on a CPU as well."""
    patient = full or setting.device.type == "cuda"
    if setting.case.bank:
        return _bank_peers(setting, patient)
    if setting.case.top_k:
        cells = setting.case.h * setting.case.w
        obstacle = _too_large(setting, cells * cells * setting.case.r)
        return {"chunked dense + top-k": Peer(chunked_dense_top_k, obstacle, coarse=True)}
    return _window_peers(setting, patient)


def _window_peers(setting: Setting, patient: bool) -> dict[str, Peer]:
    case, cuda = setting.case, setting.device.type == "cuda"
    cells, frames = case.h * case.w, case.b * case.r
    volume, pairs = frames * cells * (2 * case.radius + 1) ** 2, frames * cells * cells
    halos = 2 * frames * cells * case.c * (1 + 2 * case.radius / TILE[0]) ** 2 if case.training else 0
    kept = case.c + 2 if case.training else 2  # numbers of each tap that are held
    compiler = None if patient or cells <= 64 * 64 else "compiles for half a minute; ask for --full"
    if case.training and not cuda:
        compiler = "flex_attention has no backward on a CPU"

    def slow(work: float) -> str | None:
        return None if patient or work < SLOW else "takes seconds a call; ask for --full"

    found = {
        "SDPA on tiles": Peer(sdpa_tiles, _too_large(setting, halos)),
        "offset loop": Peer(offset_loop, slow(volume * case.c) or _too_large(setting, volume * kept), coarse=True),
        "dense + mask": Peer(dense_masked, slow(pairs * case.c / GAIN) or _too_large(setting, 2 * pairs)),
        "compiled flex": Peer(compiled_flex, compiler or no_compiler(setting), compiled=True),
    }
    if cuda and case.r == 1:
        found["NATTEN"] = Peer(natten, _missing("natten"), interior=True)
    return found


def _bank_peers(setting: Setting, patient: bool) -> dict[str, Peer]:
    pairs = setting.case.b * setting.case.h * setting.case.w * setting.case.bank
    compiler = None if patient else "compiles for a quarter of a minute; ask for --full"
    found = {
        "full matrix": Peer(bank_peers.full_matrix, _too_large(setting, 2 * pairs), coarse=True),
        "compiled matrix": Peer(
            bank_peers.compiled_matrix, compiler or no_compiler(setting), coarse=True, compiled=True
        ),
        "recomputed chunks": Peer(bank_peers.recomputed_chunks, coarse=True),
        "attention with K = V": Peer(bank_peers.attention, bank_peers.no_attention(setting)),
    }
    if setting.device.type == "cuda":
        found["cut cross-entropy"] = Peer(bank_peers.cut_cross_entropy, _missing("cut_cross_entropy"))
    return found


def no_compiler(setting: Setting) -> str | None:
    """Why ``torch.compile`` cannot work here."""
    if setting.device.type == "cuda":
        return _missing("triton")
    names = [os.environ["CXX"]] if "CXX" in os.environ else ["g++", "clang++"]
    return None if any(map(shutil.which, names)) else f"no C++ compiler ({' or '.join(names)}) is installed"


def _missing(package: str) -> str | None:
    return None if importlib.util.find_spec(package) else f"{package} is not installed"


def _too_large(setting: Setting, numbers: float) -> str | None:
    """An obstacle if so many numbers at once would fill half of the memory that is free."""
    size = numbers * setting.dtype.itemsize
    if setting.device.type == "cuda":
        free = float(torch.cuda.mem_get_info(setting.device)[0])
    else:
        free = float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")) if hasattr(os, "sysconf") else 4e9
    return f"would take {size / 1e9:.0f} GB" if size > free / 2 else None


def to_tiles(frame: Tensor, tile: tuple[int, int]) -> Tensor:
    """[b h w c] to [b rows columns cells c], the cells of a tile in a row, padded by zeros."""
    h, w = frame.shape[1:3]
    padded = F.pad(frame, (0, 0, 0, -w % tile[1], 0, -h % tile[0]))
    return rearrange(padded, "b (i y) (j x) c -> b i j (y x) c", y=tile[0], x=tile[1])


def from_tiles(tiles: Tensor, case: Case, tile: tuple[int, int]) -> Tensor:
    """The reverse of ``to_tiles``."""
    frame = rearrange(tiles, "b i j (y x) c -> b (i y) (j x) c", y=tile[0], x=tile[1])
    return frame[:, : case.h, : case.w]


def distance_mask(setting: Setting) -> Tensor:
    """Additive mask of all pairs of cells, 0 within the window: [h*w r*h*w]."""
    case = setting.case
    cell = torch.arange(case.h * case.w, device=setting.device)
    y, x = cell // case.w, cell % case.w
    near = ((y[:, None] - y).abs() <= case.radius) & ((x[:, None] - x).abs() <= case.radius)
    return torch.where(near, 0.0, -torch.inf).to(setting.dtype).repeat(1, case.r)


def sdpa_tiles(setting: Setting) -> Method:
    """torch's attention on 8 x 8 tiles and their halos, one row of tiles at a time."""
    case, radius = setting.case, setting.case.radius

    def halos(frame: Tensor) -> Tensor:
        """A view [b rows columns c side side] of the cells that each tile's windows cover."""
        h, w = frame.shape[1:3]
        padded = F.pad(frame, (0, 0, radius, radius + -w % TILE[1], radius, radius + -h % TILE[0]))
        return padded.unfold(1, TILE[0] + 2 * radius, TILE[0]).unfold(2, TILE[1] + 2 * radius, TILE[1])

    inside = halos(torch.ones(1, case.h, case.w, 1))[0].flatten(2)  # [rows columns side*side]
    near = (torch.arange(TILE[0] + 2 * radius) - torch.arange(TILE[0])[:, None] - radius).abs() <= radius
    window = (near[:, None, :, None] & near[None, :, None, :]).flatten(2).flatten(0, 1)
    mask = torch.where(window & (inside[:, :, None] > 0), 0.0, -torch.inf).to(setting.device, setting.dtype)

    def run(query: Tensor, keys: list[Tensor], values: list[Tensor]) -> Tensor:
        queries = to_tiles(query, TILE)
        key_halos, value_halos = [halos(k) for k in keys], [halos(v) for v in values]
        rows = []
        for row in range(queries.shape[1]):
            key = torch.cat([k[:, row].flatten(3).transpose(2, 3) for k in key_halos], 2)
            value = torch.cat([v[:, row].flatten(3).transpose(2, 3) for v in value_halos], 2)
            bias = mask[row].repeat(1, 1, len(keys))
            rows.append(F.scaled_dot_product_attention(queries[:, row], key, value, attn_mask=bias))
        return from_tiles(torch.stack(rows, 1), case, TILE)

    return run


def offset_loop(setting: Setting) -> Method:
    """The affinity volume, one tap after another."""
    case, radius = setting.case, setting.case.radius
    pad = (0, 0, radius, radius, radius, radius)
    hidden = F.pad(torch.ones(1, case.h, case.w, 1, device=setting.device), pad)[..., 0] == 0
    taps = [(y, x) for y in range(2 * radius + 1) for x in range(2 * radius + 1)]

    def shifted(frame: Tensor, y: int, x: int) -> Tensor:
        return frame[:, y : y + case.h, x : x + case.w]

    def volume(query: Tensor, keys: list[Tensor]) -> Iterator[Tensor]:
        for key in keys:
            padded = F.pad(key, pad)
            for y, x in taps:
                logit = (query * shifted(padded, y, x)).sum(-1) * case.c**-0.5
                yield logit.masked_fill(shifted(hidden, y, x), -torch.inf)

    def run(query: Tensor, keys: list[Tensor], values: list[Tensor]) -> Tensor:
        if case.training:
            logits = torch.stack(list(volume(query, keys)), -1)
        else:  # small tensors kept between large ones that go would tear the heap into pieces of many GB
            logits = query.new_empty(*query.shape[:3], len(keys) * len(taps))
            for i, logit in enumerate(volume(query, keys)):
                logits[..., i] = logit
        weights = logits.softmax(-1)
        padded_values = [F.pad(value, pad) for value in values]
        readout = torch.zeros_like(values[0])
        for i, (r, (y, x)) in enumerate((r, tap) for r in range(len(keys)) for tap in taps):
            readout = readout + weights[..., i, None] * shifted(padded_values[r], y, x)
        return readout

    return run


def dense_masked(setting: Setting) -> Method:
    """torch's attention over all pairs of cells, with a mask."""
    case, mask = setting.case, distance_mask(setting)

    def run(query: Tensor, keys: list[Tensor], values: list[Tensor]) -> Tensor:
        key, value = (torch.cat([f.flatten(1, 2) for f in frames], 1) for frames in (keys, values))
        readout = F.scaled_dot_product_attention(query.flatten(1, 2), key, value, attn_mask=mask)
        return rearrange(readout, "b (h w) v -> b h w v", h=case.h)

    return run


def compiled_flex(setting: Setting) -> Method:
    """Compiled flex_attention over tokens in the order of tiles, with the exact mask and the blocks that it needs."""
    from torch.nn.attention.flex_attention import BlockMask, flex_attention

    case, radius, size = setting.case, setting.case.radius, BLOCK[0] * BLOCK[1]
    cells = torch.arange(1, case.h * case.w + 1, dtype=torch.float64).reshape(1, case.h, case.w, 1)
    order = to_tiles(cells, BLOCK).flatten(1)[0].long() - 1  # -1: no cell
    far = case.h + case.w + 2 * radius  # padding sees itself alone
    y, x = (torch.where(order < 0, far, at).to(setting.device) for at in (order // case.w, order % case.w))
    count = order.numel()

    def near(b: Tensor, head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        cell = k % count
        return ((y[q] - y[cell]).abs() <= radius) & ((x[q] - x[cell]).abs() <= radius)

    columns = -(-case.w // BLOCK[1])
    block = torch.arange(order.numel() // size)
    row, column = block // columns, block % columns
    apart = [((at[:, None] - at).abs() - 1) * side + 1 for at, side in ((row, BLOCK[0]), (column, BLOCK[1]))]
    seen = ((apart[0] <= radius) & (apart[1] <= radius)).repeat(1, case.r).int()
    blocks = BlockMask.from_kv_blocks(
        seen.sum(1, dtype=torch.int32)[None, None].to(setting.device),
        seen.argsort(dim=1, descending=True, stable=True).int()[None, None].to(setting.device),
        BLOCK_SIZE=size,
        mask_mod=near,
        seq_lengths=(count, case.r * count),
    )
    flex = torch.compile(flex_attention, dynamic=False)
    # A CPU wants as many value as key channels, a GPU a power of two from 16.
    wide = case.c if setting.device.type == "cpu" else max(16, 1 << (case.v - 1).bit_length())

    def tokens(frame: Tensor) -> Tensor:
        return to_tiles(frame, BLOCK).flatten(1, 3)

    def run(query: Tensor, keys: list[Tensor], values: list[Tensor]) -> Tensor:
        key, value = (torch.cat([tokens(f) for f in frames], 1)[:, None] for frames in (keys, values))
        readout = flex(tokens(query)[:, None], key, F.pad(value, (0, wide - case.v)), block_mask=blocks)
        tiles = rearrange(readout[:, 0, :, : case.v], "b (i j t) v -> b i j t v", j=columns, t=size)
        return from_tiles(tiles, case, BLOCK)

    return run


def chunked_dense_top_k(setting: Setting) -> Method:
    """All pairs of cells in chunks of 100 queries, an additive mask, then top-k."""
    case, mask = setting.case, distance_mask(setting)

    def run(query: Tensor, keys: list[Tensor], values: list[Tensor]) -> Tensor:
        images = []
        for image in range(case.b):
            key, value = (torch.cat([f[image].flatten(0, 1) for f in frames]) for frames in (keys, values))
            parts = []
            rows_of_image = query[image].flatten(0, 1)
            for rows, bias in zip(torch.split(rows_of_image, 100), torch.split(mask, 100), strict=True):
                top, cells = (rows @ key.T * case.c**-0.5 + bias).topk(case.top_k, -1)
                parts.append((top.softmax(-1)[..., None] * value[cells]).sum(1))
            images.append(torch.cat(parts))
        return rearrange(torch.stack(images), "b (h w) v -> b h w v", h=case.h)

    return run


def natten(setting: Setting) -> Method:
    """NATTEN's neighbourhood attention: windows at borders are shifted inwards, and values are as wide as keys."""
    from natten import na2d

    case = setting.case

    def run(query: Tensor, keys: list[Tensor], values: list[Tensor]) -> Tensor:
        value = F.pad(values[0], (0, case.c - case.v))
        readout: Tensor = na2d(query[..., None, :], keys[0][..., None, :], value[..., None, :], 2 * case.radius + 1)
        return readout[..., 0, : case.v]

    return run
