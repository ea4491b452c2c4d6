"""The processes of one training: alone, or as many as ``torchrun`` started."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from ..errors import ConfigError

# torch waits half an hour for a lost process; five minutes are enough for a slow checkpoint.
_TIMEOUT = timedelta(minutes=5)


@dataclass(frozen=True)
class Ranks:
    """This process among its peers, and the device it computes on."""

    device: torch.device
    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes the files and reports progress."""
        return self.rank == 0

    def largest(self, *values: int) -> list[int]:
        """Return the largest of each value over all processes, so that they decide alike."""
        if self.world == 1:
            return list(values)
        shared = torch.tensor(values, device=self.device)
        distributed.all_reduce(shared, distributed.ReduceOp.MAX)
        return [int(value) for value in shared.tolist()]

    def total(self, *values: float) -> list[float]:
        """Return the sum of each value over all processes."""
        if self.world == 1:
            return list(values)
        shared = torch.tensor(values, device=self.device, dtype=torch.float64)
        distributed.all_reduce(shared)
        return [float(value) for value in shared.tolist()]

    def share(self, value: float, count: int) -> tuple[float, int]:
        """Return this process's part of a value and a count, so that ``total`` gives them back."""
        return value / self.world, count // self.world + (self.rank < count % self.world)

    def share_buffers(self, model: nn.Module) -> None:
        """Give every process the first one's buffers: each has seen its own part of the batches."""
        if self.world > 1:
            for buffer in model.buffers():
                distributed.broadcast(buffer, src=0)

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.world > 1:
            distributed.barrier()


@contextlib.contextmanager
def joined(device: str | torch.device = "auto") -> Iterator[Ranks]:
    """Join the process group that ``torchrun`` described, if it did, and yield our place in it."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    place = choose_device(device, local)
    if world == 1:
        yield Ranks(place)
        return
    ours = not distributed.is_initialized()
    if ours:
        _initialise(place)
    try:
        yield Ranks(place, distributed.get_rank(), distributed.get_world_size())
    finally:
        if ours:
            distributed.destroy_process_group()


def choose_device(device: str | torch.device, local_rank: int = 0) -> torch.device:
    """Return the device meant by ``auto`` (a GPU if there is one), or by its name.

    Raises:
        ConfigError: torch knows no such device, or it is not there.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        place = torch.device(device)
        if place.type == "cuda" and place.index is None:
            place = torch.device("cuda", local_rank)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"device: expected a device that is there, got {str(device)!r} ({reason}). "
            "Use cpu, cuda or auto."
        ) from error
    return place


def _initialise(device: torch.device) -> None:
    # torchrun starts failed workers anew on the same store, where the addresses of the dead ones
    # still stand (pytorch #135712); a prefix for each attempt keeps them apart.
    store, rank, world = next(rendezvous("env://", timeout=_TIMEOUT))
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=PrefixStore(f"attempt-{attempt}", store),
        rank=rank,
        world_size=world,
        timeout=_TIMEOUT,
    )
