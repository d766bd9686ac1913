"""Formula-driven images: pictures that a formula draws, with the formula's number as their label.

    images, labels = pictures(range(100), instances=10, size=16, seed=0)

A class is an iterated function system: a few affine maps x -> A x + b, of which one after the other is
chosen at random. The points that such a walk visits make a fractal. The instances of a class differ by small
changes of all numbers in the maps. Pre-training on such pictures is an idea of Kataoka et al. (2020).
"""

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

MAPS = (2, 6)  # a class has two to six maps
STRETCH = 0.9  # no map makes any distance longer than this share of it, so that no walk runs away
CHANGE = 0.08  # standard deviation of the change of A and b between instances
WALKS, STEPS, WARM_UP = 96, 48, 12
FILLED = (0.12, 0.75)  # the share of pixels that a class may fill: neither a dot nor a blot


def pictures(classes: Sequence[int], instances: int, size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return images (classes * instances, 1, size, size), values -1 (paper) to 1 (ink), and their labels.

    Class by class. `classes` are numbers of formulas: number 7 is the same formula for every seed and size;
    `seed` decides on the instances. Labels count from 0 in the order of `classes`.
    """
    generator = torch.Generator().manual_seed(seed)
    found = []
    for number in classes:
        matrices, shifts = formula(number)
        noise = torch.randn(instances, *matrices.shape, generator=generator)
        matrices = contracting(matrices + CHANGE * noise)
        shifts = shifts + CHANGE * torch.randn(instances, *shifts.shape, generator=generator)
        found.append(drawn(walk(matrices, shifts, generator), size))
    labels = torch.arange(len(found)).repeat_interleave(instances)
    return torch.cat(found)[:, None] * 2 - 1, labels


@cache
def formula(number: int) -> tuple[Tensor, Tensor]:
    """Return the maps of a class, A (maps, 2, 2) and b (maps, 2).

    Maps are drawn until their picture fills neither too little nor too much.
    """
    generator = torch.Generator().manual_seed(number)
    while True:
        maps = int(torch.randint(MAPS[0], MAPS[1] + 1, (), generator=generator))
        matrices = contracting(2 * torch.rand(maps, 2, 2, generator=generator) - 1)
        shifts = 2 * torch.rand(maps, 2, generator=generator) - 1
        share = (drawn(walk(matrices[None], shifts[None], generator), 16) > 0).float().mean().item()
        if FILLED[0] < share < FILLED[1]:
            return matrices, shifts


def contracting(matrices: Tensor) -> Tensor:
    """Shrink each matrix (..., 2, 2) whose largest singular value exceeds STRETCH to that value."""
    largest = torch.linalg.matrix_norm(matrices, ord=2)
    return matrices * (STRETCH / largest.clamp(min=STRETCH))[..., None, None]


def walk(matrices: Tensor, shifts: Tensor, generator: torch.Generator) -> Tensor:
    """Return the points (instances, count, 2) that walks visit, by the maps (instances, maps, ...)."""
    instances = len(matrices)
    chances = torch.linalg.det(matrices).abs() + 0.02  # a map that keeps more area is taken more often
    points = torch.zeros(instances, WALKS, 2)
    row = torch.arange(instances)[:, None]
    visited = []
    for step in range(STEPS):
        chosen = torch.multinomial(chances, WALKS, replacement=True, generator=generator)
        points = (matrices[row, chosen] @ points[..., None])[..., 0] + shifts[row, chosen]
        if step >= WARM_UP:
            visited.append(points)
    return torch.cat(visited, dim=1)


def drawn(points: Tensor, size: int) -> Tensor:
    """Return pictures (instances, size, size), 0 to 1, of clouds of points scaled to fill their frame."""
    low, high = points.amin(dim=1, keepdim=True), points.amax(dim=1, keepdim=True)
    extent = (high - low).amax(dim=2, keepdim=True).clamp(min=1e-6)  # one scale: nothing is stretched
    place = (points - (low + high) / 2) / extent * (size - 1e-3) + size / 2
    cell = place.long().clamp(0, size - 1)
    index = cell[..., 1] * size + cell[..., 0]
    counts = torch.zeros(len(points), size * size).scatter_add_(1, index, torch.ones(index.shape))
    ink = counts.log1p()
    return (ink / ink.amax(dim=1, keepdim=True)).unflatten(1, (size, size))
