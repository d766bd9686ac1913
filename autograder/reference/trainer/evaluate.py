"""Accuracy on held-out images, each looked at once by one of the processes."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from autograder.reference.trainer.parallel import Processes
from autograder.reference.trainer.stream import Views


@torch.no_grad()
def accuracy(
    model: nn.Module,
    logits: Callable[[Tensor], Tensor],
    views: Views,
    processes: Processes,
    batch_size: int,
    workers: int,
) -> float:
    """Return the share of images that `logits` of `model` puts into the right class."""
    model.eval()
    count, every = len(views.images), batch_size * processes.world
    # With FSDP all processes must make equally many passes: some look at the last image again, uncounted.
    starts = range(
        processes.rank * batch_size, processes.rank * batch_size - (-count // every) * every, every
    )
    mine = [range(first, first + batch_size) for first in starts]
    places = [[(0, min(number, count - 1)) for number in numbers] for numbers in mine]
    loader = DataLoader(views, batch_sampler=places, num_workers=workers)
    right = torch.zeros((), dtype=torch.int64, device=processes.device)
    for numbers, (pixels, labels) in zip(mine, loader, strict=True):
        counts = torch.tensor([number < count for number in numbers])
        right += ((logits(pixels).argmax(dim=1).cpu() == labels) & counts).sum().to(right.device)
    return processes.sum(right).item() / count
