"""The ranks of a run: one process alone, or those that torchrun started."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass

import torch
import torch.distributed as dist

__all__ = ["Ranks"]


@dataclass(frozen=True)
class Ranks:
    """This process's place among the ranks.

    Attributes:
        rank, world: of this process, 0 and 1 alone.
        device: the one this rank trains on.
        group: of all ranks for gradients and statistics; None alone.
        control: a group over the CPU for small decisions, so that none of them waits for the GPU; None alone.
    """

    rank: int
    world: int
    device: torch.device
    group: dist.ProcessGroup | None = None
    control: dist.ProcessGroup | None = None

    @classmethod
    def join(cls, device: str) -> Ranks:
        """Joins the group that torchrun's environment describes (gloo on CPU, NCCL on GPU), or stays alone.

        Raises ValueError when the device is not there.
        """
        world = int(os.environ.get("WORLD_SIZE", "1"))
        local = int(os.environ.get("LOCAL_RANK", "0"))
        chosen = _device(device, local)
        if world == 1:
            return cls(0, 1, chosen)
        if chosen.type == "cuda":
            torch.cuda.set_device(chosen)
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
        group = dist.group.WORLD
        control = dist.new_group(backend="gloo") if chosen.type == "cuda" else group
        return cls(dist.get_rank(), world, chosen, group, control)

    @property
    def first(self) -> bool:
        """Whether this is the rank that logs and saves."""
        return self.rank == 0

    def leave(self) -> None:
        """Leaves the group that `join` joined."""
        if self.group is not None:
            dist.destroy_process_group()

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank; every rank gets the same answer."""
        if self.control is None:
            return flag
        votes = torch.tensor([int(flag)])
        dist.all_reduce(votes, op=dist.ReduceOp.MAX, group=self.control)
        return bool(votes.item())

    def mean(self, values: dict[str, float]) -> dict[str, float]:
        """The values, averaged over the ranks; every rank gets the same answer."""
        if self.control is None:
            return values
        total = torch.tensor(list(values.values()), dtype=torch.float64)
        dist.all_reduce(total, group=self.control)
        return dict(zip(values, (total / self.world).tolist(), strict=True))

    def gather(self, value: object) -> list[object]:
        """The values of all ranks, in rank order, on every rank."""
        if self.control is None:
            return [value]
        values: list[object] = [None] * self.world
        dist.all_gather_object(values, value, group=self.control)
        return values

    def wait(self) -> None:
        """Returns once every rank has come here."""
        if self.control is not None:
            dist.barrier(group=self.control)


def _device(name: str, local_rank: int) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = None
    with suppress(RuntimeError):
        device = torch.device(name)
    if device is None or device.type not in ("cpu", "cuda"):
        raise ValueError(f'device: expected "auto", "cpu", "cuda" or "cuda:N", got {name!r}')
    if device.type == "cpu":
        return device
    index = local_rank if device.index is None else device.index
    count = torch.cuda.device_count()
    if index >= count:
        raise ValueError(f"device: expected one of {count} GPUs, got cuda:{index}")
    return torch.device("cuda", index)
