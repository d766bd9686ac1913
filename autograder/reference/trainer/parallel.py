"""One process, or many that torchrun started: who takes part, and how a model is spread over them.

DDP keeps the whole model in every process and averages gradients. FSDP2 (`fully_shard`) cuts parameters,
gradients and the optimiser's state into one part a process: for H/14, which with Adam's state and gradients
takes 10 GB before the first activation. Both compute the same updates.
"""

import contextlib
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class Processes:
    """This process among those of the run."""

    rank: int
    world: int
    device: torch.device

    def sum(self, value: Tensor) -> Tensor:
        """Return the sum over all processes, in every one of them."""
        if self.world > 1:
            value = value.clone()
            dist.all_reduce(value)
        return value

    def agree(self, step: int) -> None:
        """Raise ValueError unless all processes are at the same step."""
        if self.sum(torch.tensor(float(step), device=self.device)).item() != step * self.world:
            raise ValueError("processes found different checkpoints; --out must be a folder that all share")

    def wait(self) -> None:
        """Return once every process is here."""
        if self.world > 1:
            dist.barrier()


@contextlib.contextmanager
def joined() -> Iterator[Processes]:
    """Join the processes that torchrun describes in the environment; alone without them."""
    rank, world, local = (
        int(os.environ.get(name, d)) for name, d in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))
    )
    device = torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if world == 1:
        yield Processes(rank, world, device)
        return
    store = _own_part(next(rendezvous("env://"))[0], rank, world)
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=world)
    yield Processes(rank, world, device)
    dist.destroy_process_group()  # after an error it could wait for processes that no longer answer


def _own_part(store: Store, rank: int, world: int) -> Store:
    """Return the part of torchrun's store that belongs to this start of the processes.

    torchrun keeps one store over restarts, where the addresses of killed processes still stand. Its count of
    restarts differs between machines. So rank 0 draws a name and tells it to those that ask now: every
    process asks under a name of its own, to which no earlier start can have replied.
    """
    name = uuid.uuid4().hex
    store.set(f"asks/{rank}", name)
    if rank > 0:
        start = store.get(f"reply/{name}").decode()
        store.set(f"{start}/knows/{rank}", "")
        return PrefixStore(start, store)
    missing = set(range(1, world))
    while missing:
        for other in missing:
            if store.check([f"asks/{other}"]):
                store.set(f"reply/{store.get(f'asks/{other}').decode()}", name)
        missing = {other for other in missing if not store.check([f"{name}/knows/{other}"])}
        time.sleep(0.01)
    return PrefixStore(name, store)


def shard(model: nn.Module, processes: Processes, half: bool) -> None:
    """Cut the parameters over the processes, block by block, in place. `half`: compute in bfloat16."""
    mesh = init_device_mesh(processes.device.type, (processes.world,))
    options: dict[str, Any] = {"mesh": mesh}
    if half:
        options["mp_policy"] = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    for block in model.blocks.children():  # type: ignore[union-attr]
        fully_shard(block, **options)
    fully_shard(model, **options)


def replicate(model: nn.Module, processes: Processes) -> nn.Module:
    """Return the model for a forward pass whose backward averages gradients over the processes."""
    if processes.world == 1 or isinstance(model, FSDPModule):
        return model
    devices = [processes.device] if processes.device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=devices, gradient_as_bucket_view=True)


def gradients_wait(model: nn.Module, last: bool) -> AbstractContextManager[None]:
    """Return the context of a pass: processes exchange gradients in the last pass of a step only."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(last)
    elif isinstance(model, DistributedDataParallel) and not last:
        return model.no_sync()
    return contextlib.nullcontext()
