"""Test the attention maps of the small model for several seeds, as chapter 11 does for one.

python book/map_tests.py    # about three minutes on one core; writes map_tests.csv beside it
"""

import csv
from pathlib import Path

import torch
import torch.nn.functional as F
from small_model import GRID, PATCH, TEST, accuracy, trained
from torch import Tensor, nn

from autograder.reference.attention_maps import (
    attention_rollout,
    cls_attention_map,
    mean_attention_distance,
    record_attention,
)

SEEDS = (0, 1, 2, 3, 4)
ERASED = 8
RESULTS = Path(__file__).with_name("map_tests.csv")


@torch.no_grad()
def accuracy_without(model: nn.Module, images: Tensor, labels: Tensor, scores: Tensor, count: int) -> float:
    """Return the accuracy when the `count` patches with the highest scores (B, N) are painted as paper."""
    highest = scores.argsort(dim=1, descending=True)[:, :count]
    keep = torch.ones_like(scores).scatter(1, highest, 0.0).reshape(-1, 1, *GRID)
    keep = F.interpolate(keep, scale_factor=PATCH, mode="nearest")
    return accuracy(model, images * keep - (1 - keep), labels)


@torch.no_grad()
def main() -> None:
    """Measure and write one row a seed: right answers without the patches of each order, and distances."""
    rows = []
    for seed in SEEDS:
        model, images, labels, _ = trained(seed=seed)
        attentions = record_attention(model, images)
        far = [mean_attention_distance(weights, GRID, PATCH).mean().item() for weights in attentions]
        orders = {
            "rollout": cls_attention_map(attention_rollout(attentions), GRID).flatten(1),
            "last layer": attentions[-1].mean(dim=1)[:, 0, 1:],
            "most ink": F.avg_pool2d(images, PATCH).flatten(1),
            "at random": torch.rand(TEST, GRID[0] * GRID[1], generator=torch.Generator().manual_seed(0)),
        }
        right = [
            round(TEST * accuracy_without(model, images, labels, order, ERASED)) for order in orders.values()
        ]
        rows.append((seed, *right, f"{far[0]:.2f}", f"{sum(far[1:]) / 3:.2f}"))
    with RESULTS.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([("seed", *orders, "pixels in layer 1", "pixels in later layers"), *rows])


if __name__ == "__main__":
    main()
