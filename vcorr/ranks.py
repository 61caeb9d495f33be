"""The processes that train one model together: which of them this is, and what they agree on.

``torchrun`` starts several processes (ranks), each of which takes its share of every batch. Where there is one process
alone, everything here gives back what it was given.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import torch
import torch.distributed as dist

# Its functions have the group of their import as a default argument. Were they imported while a group is joined, which
# torch's compiler does, they would keep its threads, and one that still runs when the process ends may abort it.
import torch.distributed.nn.functional
from torch import Tensor

from vcorr.errors import UsageError, VcorrError

T = TypeVar("T")

_PARTED = ContextVar("parted", default=False)


class PeerLost(VcorrError):
    """Another process of the training ended; it says why itself."""


def rank() -> int:
    """Which process this is, from 0."""
    return dist.get_rank() if _joined() else 0


def size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if _joined() else 1


def here() -> int:
    """How many of them run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if _joined() else 1


def _joined() -> bool:
    return dist.is_initialized()


@contextmanager
def joined(device: torch.device) -> Iterator[torch.device]:
    """Join the processes that ``torchrun`` started, if it did, and leave them at the end.

    Yields:
        The device of this process: of several GPUs its own, unless ``device`` names one.

    Raises:
        UsageError: fewer GPUs than processes.
        PeerLost: another process ended while inside.
    """
    together = "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1
    if together and device.type == "cuda":
        local, here = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        anyone = str(device) == "cuda"
        if anyone and local >= here:
            raise UsageError("torchrun", f"process {local} of this machine has no GPU, there are {here}", "start fewer")
        device = torch.device("cuda", local) if anyone else device
        torch.cuda.set_device(device)
    if not together or _joined():
        yield device
        return
    fast = "nccl" if device.type == "cuda" and dist.is_nccl_available() else "gloo"
    # An hour: the first rank alone tries labelled clips, while the others wait.
    backend = f"cpu:gloo,cuda:{fast}" if device.type == "cuda" else "gloo"
    patience = datetime.timedelta(hours=1)
    store, own, count = next(dist.rendezvous("env://", timeout=patience))  # type: ignore[attr-defined]
    # torchrun's store outlives a restart, and with it the addresses of processes that are gone.
    restarts = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    attempt = dist.PrefixStore(f"attempt {restarts}", store)  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=attempt, rank=own, world_size=count, timeout=patience)
    try:
        yield device
    except RuntimeError as error:  # what gloo and NCCL raise, from wherever a collective stands
        if isinstance(error, dist.DistError) or any(word in str(error).lower() for word in ("gloo", "nccl")):
            raise PeerLost(
                f"rank {rank()}", "lost contact with the others", "see the error of the first to end"
            ) from error
        raise
    finally:
        dist.destroy_process_group()


@contextmanager
def parted() -> Iterator[None]:
    """Inside, a batch is parted among all processes (``parts``), each of which runs the same code on its share.

    Outside, what one process computes is its own affair: it may do so alone, and waits for nobody.
    """
    token = _PARTED.set(True)
    try:
        yield
    finally:
        _PARTED.reset(token)


def parts() -> int:
    """Among how many processes the batch at hand is parted: 1 outside ``parted``."""
    return size() if _PARTED.get() else 1


def share(samples: range) -> range:
    """The part of a batch that this process takes; the parts are of one size, in the order of the ranks.

    Raises:
        ValueError: it cannot be parted so.
    """
    part, rest = divmod(len(samples), size())
    if rest:
        raise ValueError(f"a batch of {len(samples)} cannot be parted among {size()} processes")
    return samples[rank() * part : (rank() + 1) * part]


def largest(*numbers: int) -> tuple[int, ...]:
    """The largest that any process gave, of each of some integers."""
    if size() == 1:
        return numbers
    given = torch.tensor(numbers, dtype=torch.int64)
    dist.all_reduce(given, dist.ReduceOp.MAX)
    return tuple(given.tolist())


def mean(*numbers: float) -> tuple[float, ...]:
    """The mean over the processes, of each of some numbers; not finite where any was not."""
    if size() == 1:
        return numbers
    given = torch.tensor(numbers, dtype=torch.float64)
    dist.all_reduce(given)
    return tuple((given / size()).tolist())


def from_first(work: Callable[[], T]) -> T:
    """What the first process made, for all; the others wait. An error there is raised in all."""
    if size() == 1:
        return work()
    box: list[Any] = [None, None]
    if rank() == 0:
        try:
            box[0] = work()
        except VcorrError as error:
            box[1] = error
    dist.broadcast_object_list(box)
    if box[1] is not None:
        raise shared(box[1])
    made: T = box[0]
    return made


def shared(error: VcorrError) -> VcorrError:
    """Mark an error that all processes raise alike, so that one of them alone need tell it."""
    error.shared = True
    return error


def mean_(x: Tensor) -> Tensor:
    """The mean of a tensor over the processes, written into it. Without gradient."""
    if size() > 1:
        dist.all_reduce(x)
        x /= size()
    return x


def gather(x: Tensor, count: int | None = None) -> Tensor:
    """The tensor [...] of each process among which the batch is parted, in their order: [parts ...]. Without gradient.

    Args:
        count: what ``parts`` said in the forward pass, for a backward pass, which torch may run outside ``parted``.
    """
    count = parts() if count is None else count
    if count == 1:
        return x.detach()[None]
    gathered = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(count)]
    dist.all_gather(gathered, x.detach().contiguous())
    return torch.stack(gathered)
