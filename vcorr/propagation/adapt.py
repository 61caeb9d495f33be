"""Online adaptation: a network that learns one video from its propagated masks, and labels it anew (MAST-momentum).

Zhu et al. 2020, section 3.4: a U-Net from random weights sees single frames of this video alone. What propagation got
wrong now and then does not fit what it got right in all the other frames, and so is not learnt. Loss: cross entropy
and Dice, early frames weighted more; Adam, its rate halved every 50 of 200 iterations. The argmax is the result.

``full`` is that network, on pictures of 480 x 480. ``light`` is a small one on the features of the frozen encoder,
which two cores of a laptop fit in minutes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from vcorr import rng as random
from vcorr.errors import UsageError
from vcorr.labels.label import MaskLabels
from vcorr.labels.raw_ids import Ids
from vcorr.matching.cells import Grid
from vcorr.model import color, unet
from vcorr.model.encoder import Model, Picture
from vcorr.model.nn import Tensors
from vcorr.model.unet import UNetConfig
from vcorr.propagation.span import Pictures

Form = Literal["full", "light"]

JITTER = color.JitterConfig(0.3, 0.3, 0.3, 0.3, 0.1)
GREY = 0.2  # share of the pictures that lose their colours
OF_LOSS = ("iteration", "loss", "cross_entropy", "dice")


@dataclass(frozen=True)
class Adaptation:
    """How a network is fitted to a video.

    Attributes:
        form: full or light.
        interleaved: iteration i of n sees the first i/n of the frames alone, as if it ran while these are labelled.
        iterations, batch: of the training. lr: its rate, halved every ``halve_every`` iterations.
        late: weight of the last frame, where the first has 1.
        most: frames that it learns from; of a longer video, so many at equal distances.
        seed: of all draws.
    """

    form: Form = "full"
    interleaved: bool = False
    iterations: int = 200
    batch: int = 4
    lr: float = 2e-4
    halve_every: int = 50
    late: float = 0.5
    most: int = 256
    seed: int = 0

    @classmethod
    def of(cls, form: Form, *, interleaved: bool = False) -> Adaptation:
        """The settings of a form.

        Raises:
            UsageError: there is no such form.
        """
        if form not in get_args(Form):
            raise UsageError(f"adapt {form}", "is not known", f"give {' or '.join(get_args(Form))}")
        return cls(interleaved=interleaved) if form == "full" else cls("light", interleaved, lr=1e-3, most=96)


@dataclass(frozen=True)
class Job:
    """What is adapted to.

    Attributes:
        frames: of the video, those that are labelled. pictures: gives them.
        given: masks that were given, by frame index. masks: gives the mask of any frame, given or propagated.
        labels: the kind of label. model: the encoder, whose features the light form sees.
    """

    frames: range
    pictures: Pictures
    given: Mapping[int, Ids]
    masks: Callable[[int], Ids]
    labels: MaskLabels
    model: Model


class Full:
    """What a U-Net on pictures sees: the whole frame, square."""

    side = 480
    widths: tuple[int, ...] = (64, 128, 256, 512)
    decoder: tuple[int, ...] = (256, 128, 64, 32, 16)

    def __init__(self, job: Job) -> None:
        self.labels, self.device = job.labels, job.model.encoder.device
        self.net = UNetConfig(job.labels.channels, widths=self.widths, decoder=self.decoder)

    def kept(self, picture: Picture, mask: Ids) -> dict[str, NDArray[Any]]:
        """What is kept of a frame to learn from."""
        ids = np.searchsorted(self.labels.classes, mask)
        return {
            "seen": _resized(picture, (self.side, self.side)),
            "ids": _nearest(ids, (self.side, self.side)).astype(np.uint16),
        }

    def batch(self, drawn: Sequence[Mapping[str, NDArray[Any]]], first: int, seed: int) -> tuple[Tensor, Tensor]:
        """Pictures [b 3 h w] in other colours, some mirrored, and shares of their classes [b v h w].

        Args:
            drawn: what was kept of frames. first: number of the first draw of all. seed: of the changes.
        """
        rgb = torch.stack([color.from_uint8(d["seen"], self.device) for d in drawn])
        numbers = range(first, first + len(drawn))
        rgb = color.jitter(rgb[:, None], numbers, JITTER, seed)[:, 0]
        ids = torch.stack([torch.from_numpy(d["ids"].astype(np.int64)) for d in drawn]).to(self.device)
        for i, number in enumerate(numbers):
            rng = random.generator(seed, "view", number)
            if random.uniform(0, 1, rng) < GREY:
                rgb[i] = color.to_space(rgb[i : i + 1], "gray")[0]
            if random.uniform(0, 1, rng) < 0.5:
                rgb[i], ids[i] = rgb[i].flip(-1), ids[i].flip(-1)
        return _centred(rgb), F.one_hot(ids, self.labels.channels).movedim(-1, 1).float()

    def seen(self, picture: Picture) -> tuple[Tensor, Grid]:
        """The input [1 c h w] of a frame, and the grid of what comes out."""
        rgb = color.from_uint8(_resized(picture, (self.side, self.side))[None], self.device)
        return _centred(rgb), Grid(1, "sampled", (self.side, self.side), self.labels.size)


class Light:
    """What a small U-Net on features sees: crops of the cells of a frame, at the size at which it was read."""

    crop = (64, 96)  # cells
    near = 0.5  # share of the crops around a cell of an object
    widths: tuple[int, ...] = (32, 64, 128)
    decoder: tuple[int, ...] = (64, 32)

    def __init__(self, job: Job) -> None:
        self.labels, self.model = job.labels, job.model
        self.device, self.stride = job.model.encoder.device, job.model.encoder.stride
        _, picture = next(job.pictures(job.frames[:1]))
        channels = self._features(picture).shape[-1]
        self.net = UNetConfig(job.labels.channels, channels, False, self.widths, 1, self.decoder)

    def kept(self, picture: Picture, mask: Ids) -> dict[str, NDArray[Any]]:
        seen = self._features(picture).half().cpu().numpy()
        height, width = seen.shape[0] * self.stride, seen.shape[1] * self.stride
        ids = _nearest(np.searchsorted(self.labels.classes, mask), picture.shape[:2])
        room = ((0, height - ids.shape[0]), (0, width - ids.shape[1]))
        return {"seen": seen, "ids": np.pad(ids, room, mode="edge").astype(np.uint16)}

    def batch(self, drawn: Sequence[Mapping[str, NDArray[Any]]], first: int, seed: int) -> tuple[Tensor, Tensor]:
        """Features [b c h w] of crops, some mirrored, and shares of their classes [b v h w]."""
        seen, shares = [], []
        for number, kept in enumerate(drawn, start=first):
            rng = random.generator(seed, "view", number)
            x, ids = self._cropped(kept, rng)
            flip = (-1,) if random.uniform(0, 1, rng) < 0.5 else ()
            seen.append(x.flip(flip))
            shares.append(self._shares(ids).flip(flip))
        return torch.stack(seen).contiguous(memory_format=torch.channels_last), torch.stack(shares)

    def seen(self, picture: Picture) -> tuple[Tensor, Grid]:
        x = self._features(picture).permute(2, 0, 1)[None].contiguous(memory_format=torch.channels_last)
        guide = color.from_uint8(picture[None], self.device) if self.model.inference.upsampling == "guided" else None
        size = (picture.shape[0], picture.shape[1])
        return x, Grid(self.stride, self.model.matching.alignment, size, self.labels.size, guide)

    def _features(self, picture: Picture) -> Tensor:
        """Features of a frame and its colours [h w c]."""
        features = self.model.encoder.query(picture)[0].clone()  # the encoder's are of inference mode
        rgb = color.from_uint8(picture[None], self.device)
        height, width = features.shape[:2]
        cells = F.adaptive_avg_pool2d(rgb, (height, width))[0].permute(1, 2, 0)
        return torch.cat([features * math.sqrt(features.shape[-1]), 4 * cells - 2], -1)

    def _cropped(self, kept: Mapping[str, NDArray[Any]], rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Features [c h w] and ids [h * stride, w * stride] of a crop."""
        x, ids, s = kept["seen"], kept["ids"], self.stride
        size = [min(a, b) for a, b in zip(self.crop, x.shape[:2], strict=True)]
        room = [a - b for a, b in zip(x.shape[:2], size, strict=True)]
        cells = np.argwhere(ids[::s, ::s]) if random.uniform(0, 1, rng) < self.near else np.empty((0, 2))
        if len(cells):
            centre = cells[random.integer(0, len(cells), rng)]
            shift = [random.integer(-b // 4, b // 4 + 1, rng) for b in size]
            top, left = (
                min(max(int(c) + d - b // 2, 0), r) for c, d, b, r in zip(centre, shift, size, room, strict=True)
            )
        else:
            top, left = (random.integer(0, r + 1, rng) for r in room)
        x = x[top : top + size[0], left : left + size[1]]
        ids = ids[top * s : (top + size[0]) * s, left * s : (left + size[1]) * s]
        features = torch.from_numpy(np.ascontiguousarray(x)).to(self.device).float().permute(2, 0, 1)
        return features, torch.from_numpy(ids.astype(np.int64)).to(self.device)

    def _shares(self, ids: Tensor) -> Tensor:
        """Classes of pixels -> share of each class in each cell [v h w]."""
        s = self.stride
        h, w = ids.shape[0] // s, ids.shape[1] // s
        pixels = ids.view(h, s, w, s).permute(0, 2, 1, 3).reshape(h, w, s * s)
        counts = torch.zeros(h, w, self.labels.channels, device=ids.device)
        return counts.scatter_add_(-1, pixels, torch.ones_like(pixels, dtype=torch.float32)).permute(2, 0, 1) / s**2


VIEWS: Mapping[Form, Callable[[Job], Full | Light]] = {"full": Full, "light": Light}


@dataclass
class Network:
    """A network while it is fitted.

    Attributes:
        cfg: how. net: its shape. losses: of each iteration so far, as `OF_LOSS` names them.
    """

    cfg: Adaptation
    net: UNetConfig
    device: torch.device
    losses: list[tuple[int, float, float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        with torch.device("cpu"):
            params, stats = unet.init(self.net, random.generator(self.cfg.seed, "unet"))
        self.params = {k: v.to(self.device).requires_grad_() for k, v in params.items()}
        self.stats = {k: v.to(self.device) for k, v in stats.items()}
        self.optimiser = torch.optim.Adam(self.params.values(), lr=self.cfg.lr)

    @property
    def iteration(self) -> int:
        """Iterations so far."""
        return len(self.losses)

    def step(self, x: Tensor, shares: Tensor, weight: Tensor) -> None:
        """One iteration on inputs [b c h w], shares of classes [b v h w] and the weights of the frames [b]."""
        self.optimiser.param_groups[0]["lr"] = self.cfg.lr * 0.5 ** (self.iteration // self.cfg.halve_every)
        logits, stats = unet.apply(self.net, self.params, self.stats, x, train=True)
        entropy, dice = losses(logits.float(), shares)
        loss = (weight * (entropy + dice)).mean()
        self.optimiser.zero_grad()
        torch.autograd.backward(loss)
        self.optimiser.step()
        self.stats = {k: v.detach() for k, v in stats.items()}
        told = (v.item() for v in (loss.detach(), entropy.detach().mean(), dice.detach().mean()))
        self.losses.append((self.iteration + 1, *told))  # type: ignore[arg-type]

    @torch.no_grad()
    def shares(self, x: Tensor) -> Tensor:
        """Shares of classes [b h w v] of inputs [b c h w]."""
        logits, _ = unet.apply(self.net, self.params, self.stats, x, train=False)
        return logits.float().softmax(1).permute(0, 2, 3, 1)

    def state(self) -> Tensors:
        """All of it."""
        tensors = {f"params.{k}": v.detach() for k, v in self.params.items()}
        tensors |= {f"stats.{k}": v for k, v in self.stats.items()}
        for name, p in self.params.items():
            tensors |= {f"{key}.{name}": value for key, value in self.optimiser.state[p].items()}
        return tensors | {"losses": torch.tensor(self.losses, dtype=torch.float64)}

    def restore(self, state: Tensors) -> None:
        """Go on from a state.

        Raises:
            KeyError, ValueError, RuntimeError: it is of another network.
        """
        kept = {key: {k: state[f"{key}.{k}"] for k in self.params} for key in ("step", "exp_avg", "exp_avg_sq")}
        params = {k: state[f"params.{k}"] for k in self.params}
        stats = {k: state[f"stats.{k}"].to(self.device) for k in self.stats}
        told = [(int(row[0]), *row[1:]) for row in state["losses"].tolist()]
        with torch.no_grad():
            for name, p in self.params.items():
                p.copy_(params[name])
                self.optimiser.state[p] = {
                    key: kept[key][name].to("cpu" if key == "step" else self.device).clone() for key in kept
                }
        self.stats, self.losses = stats, told


def losses(logits: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    """Cross entropy and Dice loss [b] of logits [b v h w] against shares of classes [b v h w].

    Dice is 1 - (2 sum pg + 1) / (sum p + sum g + 1), the mean over classes.
    """
    log_p = logits.log_softmax(1)
    p = log_p.exp()
    entropy = -(shares * log_p).sum(1).mean((1, 2))
    both, all_ = (p * shares).sum((2, 3)), p.sum((2, 3)) + shares.sum((2, 3))
    return entropy, (1 - (2 * both + 1) / (all_ + 1)).mean(1)


@dataclass(frozen=True)
class Course:
    """The frames that are learnt from, in the order in which propagation reaches them.

    Attributes:
        frames: their indices. weights: how much each counts, 1 on average.
    """

    frames: Sequence[int]
    weights: Sequence[float]

    @classmethod
    def of(cls, frames: range, given: Mapping[int, Ids], cfg: Adaptation) -> Course:
        """Weights fall from 1 at a labelled frame to ``late`` at the frame that is farthest from one."""
        labelled = [k for k in given if k in frames]
        chosen = {frames[round(i)] for i in np.linspace(0, len(frames) - 1, min(len(frames), cfg.most))} | {*labelled}
        away = {k: min(abs(k - near) for near in labelled) for k in sorted(chosen)}
        order = sorted(away, key=lambda k: (away[k], k))
        farthest = max(1, away[order[-1]])
        weights = np.array([1 - (1 - cfg.late) * away[k] / farthest for k in order])
        return cls(order, (weights / weights.mean()).tolist())

    def drawn(self, iteration: int, cfg: Adaptation) -> list[int]:
        """Positions of the frames of an iteration."""
        seen = len(self.frames)
        if cfg.interleaved:
            seen = max(min(2, seen), math.ceil(seen * (iteration + 1) / cfg.iterations))
        rng = random.generator(cfg.seed, "adapt", iteration)
        return torch.randint(0, seen, (cfg.batch,), generator=rng).tolist()


def fitted(
    job: Job,
    cfg: Adaptation,
    scratch: Path,
    *,
    state: Tensors | None = None,
    reached: Callable[[Network], None] = lambda network: None,
) -> tuple[Network, Full | Light]:
    """A network fitted to a video.

    Args:
        scratch: a file for what it learns from, removed at the end.
        state: of a network to go on with (``Network.state``); one that does not fit is passed over.
        reached: called after each iteration.
    """
    view = VIEWS[cfg.form](job)
    network = Network(cfg, view.net, view.device)
    if state is not None:
        try:
            network.restore(state)
        except (KeyError, ValueError, RuntimeError, TypeError):
            network = Network(cfg, view.net, view.device)
    course = Course.of(job.frames, job.given, cfg)
    draws = [course.drawn(i, cfg) for i in range(network.iteration, cfg.iterations)]
    wanted = sorted({course.frames[p] for row in draws for p in row})
    samples: Any = None
    try:
        for place, (index, picture) in enumerate(_chosen(job.pictures, wanted)):
            kept = view.kept(picture, job.masks(index))
            if samples is None:
                fields = np.dtype([(name, array.dtype, array.shape) for name, array in kept.items()])
                samples = np.memmap(scratch, dtype=fields, mode="w+", shape=(len(wanted),))
            for name, array in kept.items():
                samples[place][name] = array
        places = {k: i for i, k in enumerate(wanted)}
        for row in draws:
            drawn = [samples[places[course.frames[p]]] for p in row]
            records = [{name: np.array(record[name]) for name in samples.dtype.names} for record in drawn]
            x, shares = view.batch(records, network.iteration * cfg.batch, cfg.seed)
            network.step(x, shares, torch.tensor([course.weights[p] for p in row], device=view.device))
            reached(network)
    finally:
        samples = None
        scratch.unlink(missing_ok=True)
    return network, view


def relabelled(
    job: Job,
    network: Network,
    view: Full | Light,
    frames: Sequence[int],
    scored: Callable[[int, Tensor, Grid], None] = lambda index, shares, grid: None,
) -> Iterator[tuple[int, Ids]]:
    """(index, mask) of frames, ascending, by the argmax of a network; given masks as they are.

    Args:
        scored: takes the index of each other frame, its shares of classes [1 h w v] and their grid.
    """
    for index, picture in _chosen(job.pictures, frames):
        if index in job.given:
            yield index, job.given[index]
        else:
            x, grid = view.seen(picture)
            shares = network.shares(x)
            scored(index, shares, grid)
            yield index, job.labels.from_cells(shares, grid)


def _chosen(pictures: Pictures, frames: Sequence[int]) -> Iterator[tuple[int, Picture]]:
    """Some frames, ascending: what lies between two of them is decoded, since seeking costs more."""
    wanted = set(frames)
    if wanted:
        yield from (found for found in pictures(range(min(wanted), max(wanted) + 1)) if found[0] in wanted)


def _centred(rgb: Tensor) -> Tensor:
    return ((rgb - 0.5) * 4).contiguous(memory_format=torch.channels_last)


def _resized(picture: Picture, size: tuple[int, int]) -> Picture:
    """Bytes at another size, each the mean of what it covers where that is smaller."""
    x = torch.from_numpy(np.require(picture, requirements=("C", "W"))).permute(2, 0, 1)[None].float()
    x = F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)
    resized: Picture = x[0].round().clamp(0, 255).byte().permute(1, 2, 0).contiguous().numpy()
    return resized


def _nearest(ids: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    rows, columns = (((np.arange(n) + 0.5) * (m / n)).astype(int) for n, m in zip(size, ids.shape, strict=True))
    chosen: NDArray[Any] = ids[rows[:, None], columns]
    return chosen
