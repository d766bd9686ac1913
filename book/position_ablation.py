"""Measure the small model with each kind of positions, at its own image size and at a larger one.

python book/position_ablation.py    # about ten minutes on one core; writes position_ablation.csv
"""

import csv
from copy import deepcopy
from pathlib import Path

import torch
import torch.nn.functional as F
from small_model import GRID, POSITIONS, SIZE, TEST, accuracy, digits, trained
from torch import Tensor, nn

from autograder.reference.position_embedding import (
    interpolate_position_embedding,
    sinusoidal_1d,
    sinusoidal_2d,
)
from autograder.reference.vit import VisionTransformer

SEEDS = (0, 1, 2)
LARGE, LARGE_GRID = 48, (12, 12)
RESULTS = Path(__file__).with_name("position_ablation.csv")


def stretched(pos_embed: Tensor, count: int) -> Tensor:
    """Resize the patches as if they stood in one line: the mistake that a grid is there to avoid."""
    line = F.interpolate(pos_embed[:, 1:].transpose(1, 2), size=count, mode="linear")
    return torch.cat([pos_embed[:, :1], line.transpose(1, 2)], dim=1)


def for_large_images(model: VisionTransformer, positions: str) -> dict[str, Tensor]:
    """Return position embeddings for the larger grid, by the name of the way they were made."""
    kept, dim = model.pos_embed.detach(), model.pos_embed.shape[-1]
    count = LARGE_GRID[0] * LARGE_GRID[1]
    ways = {
        "interpolated": interpolate_position_embedding(kept, GRID, LARGE_GRID),
        "stretched as a line": stretched(kept, count),
    }
    table = {
        "1-D sines": sinusoidal_1d(count, dim),
        "2-D sines": sinusoidal_2d(*LARGE_GRID, dim),
    }
    if positions in table:
        ways["computed"] = torch.cat([kept[:, :1], table[positions][None]], dim=1)
    return ways


def with_positions(model: VisionTransformer, pos_embed: Tensor) -> VisionTransformer:
    """Return a copy of the model for the larger grid."""
    large = deepcopy(model)
    large.grid, large.pos_embed = LARGE_GRID, nn.Parameter(pos_embed)
    return large


def main() -> None:
    """Train what is not trained yet, measure, and write one row a measurement."""
    *_, images, labels = digits()
    large_images = digits(LARGE)[2]
    roomy = F.pad(images, (0, LARGE - SIZE, 0, LARGE - SIZE), value=-1)  # empty paper to the right and below
    rows = []
    for positions in POSITIONS:
        for seed in SEEDS:
            model, _, _, share = trained(positions=positions, seed=seed)
            rows.append((positions, seed, SIZE, "as trained", round(share * TEST)))
            for way, pos_embed in for_large_images(model, positions).items():
                large = with_positions(model, pos_embed)
                share = accuracy(large, large_images, labels)
                rows.append((positions, seed, LARGE, way, round(share * TEST)))
                if way == "computed":
                    share = accuracy(large, roomy, labels)
                    rows.append((positions, seed, LARGE, "computed, more room", round(share * TEST)))
    with RESULTS.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([("positions", "seed", "size", "way", f"right_of_{TEST}"), *rows])


if __name__ == "__main__":
    main()
