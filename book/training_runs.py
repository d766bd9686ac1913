"""Training runs of chapter 8: a very small ViT on scikit-learn's digits, with one thing changed at a time.

    python book/training_runs.py      # half an hour on one core; writes training_runs.csv beside it

The 8 x 8 digits are cut into patches of 2 x 2: 16 tokens. A run has 600 steps, however many images there are,
so that all cost the same.
"""

import csv
import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from small_model import TEST, digits
from torch import Tensor, nn

from autograder.reference.training import smoothed_cross_entropy, warmup_cosine, weight_decay_groups
from autograder.reference.vision_transformer import VisionTransformer

SEEDS = range(3)
COUNTS = (50, 200, 600, 1437)
RATES = (1e-3, 3e-3, 1e-2, 3e-2)
RESULTS = Path(__file__).with_name("training_runs.csv")


@dataclass(frozen=True)
class Recipe:
    """What a run does. `warmup` is a share of the steps; with `decay_all` no parameter is spared."""

    model: str = "vit"
    count: int = 1437
    steps: int = 600
    batch: int = 32
    peak_lr: float = 3e-3
    schedule: str = "cosine"
    warmup: float = 0.1
    weight_decay: float = 0.05
    decay_all: bool = False
    smoothing: float = 0.0
    augment: bool = False
    clip: float = 1.0


@dataclass(frozen=True)
class Run:
    """The trained model, the loss of every step, the norm of its gradient before clipping, and tests."""

    model: nn.Module
    losses: list[float]
    norms: list[float]
    tests: list[tuple[int, float, float]]  # step, mean loss, right answers of TEST

    @property
    def right(self) -> int:
        """How many test images the trained model classifies right."""
        return round(self.tests[-1][2])


def vit() -> VisionTransformer:
    """Return the model of this chapter, as it starts."""
    return VisionTransformer(8, 2, 1, 10, dim=32, depth=4, num_heads=4, mlp_dim=64)


def cnn() -> nn.Module:
    """Return a small convolutional network with about as many parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(),
        nn.Conv2d(32, 48, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(48, 48, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(48, 10),
    )  # fmt: skip


def moved(images: Tensor) -> Tensor:
    """Return each image turned by up to 8 degrees, scaled by up to 8 % and shifted by up to half a pixel."""
    angle, scale, right, down = (2 * torch.rand(4, len(images)) - 1).unbind()
    angle, scale = math.radians(8) * angle, 1 + 0.08 * scale
    right, down = right / images.shape[-1], down / images.shape[-2]  # an image is 2 wide: half a pixel
    cos, sin = scale * angle.cos(), scale * angle.sin()
    rows = torch.stack([cos, -sin, right, sin, cos, down], dim=1).reshape(-1, 2, 3)
    grid = F.affine_grid(rows, list(images.shape), align_corners=False)
    return F.grid_sample(images + 1, grid, align_corners=False) - 1  # empty paper is -1


def rate(recipe: Recipe, step: int) -> float:
    """Return the learning rate of a step."""
    warmup = round(recipe.warmup * recipe.steps)
    if recipe.schedule == "constant":
        return recipe.peak_lr * min(1, step / warmup) if warmup else recipe.peak_lr
    return warmup_cosine(step, recipe.steps, warmup, recipe.peak_lr)


def run(recipe: Recipe, seed: int, test_every: int = 0) -> Run:
    """Train one model; tests every `test_every` steps (0: only at the end)."""
    images, labels, test_images, test_labels = digits(8)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        chosen = torch.randperm(len(labels))[: recipe.count]
        images, labels = images[chosen], labels[chosen]
        model = vit() if recipe.model == "vit" else cnn()
        groups = weight_decay_groups(model, recipe.weight_decay)
        if recipe.decay_all:
            groups[1]["weight_decay"] = recipe.weight_decay
        optimizer = torch.optim.AdamW(groups, lr=recipe.peak_lr)
        losses, norms, tests, waiting = [], [], [], torch.empty(0, dtype=torch.int64)
        for step in range(recipe.steps):
            if len(waiting) < min(recipe.batch, recipe.count):
                waiting = torch.randperm(recipe.count)
            batch, waiting = waiting[: recipe.batch], waiting[recipe.batch :]
            for group in optimizer.param_groups:
                group["lr"] = rate(recipe, step)
            optimizer.zero_grad()
            inputs = moved(images[batch]) if recipe.augment else images[batch]
            loss = smoothed_cross_entropy(model(inputs), labels[batch], recipe.smoothing)
            loss.backward()
            norms.append(nn.utils.clip_grad_norm_(model.parameters(), recipe.clip).item())
            optimizer.step()
            losses.append(loss.item())
            if step + 1 == recipe.steps or (test_every and (step + 1) % test_every == 0):
                with torch.no_grad():
                    logits = model(test_images)
                right = (logits.argmax(dim=1) == test_labels).sum().item()
                tests.append((step + 1, F.cross_entropy(logits, test_labels).item(), right))
    return Run(model, losses, norms, tests)


def recipes() -> dict[str, Recipe]:
    """Return every recipe of the study by its name."""
    base, few = Recipe(), Recipe(count=200)
    found = {
        f"{name}, {count} images": Recipe(model=model, count=count, augment=augment)
        for count in COUNTS
        for name, model, augment in (("ViT", "vit", False), ("ViT moved", "vit", True), ("CNN", "cnn", False))
    }
    found |= {
        f"rate {peak:g}, warm-up {warmup:g}": replace(base, peak_lr=peak, warmup=warmup)
        for peak in RATES
        for warmup in (0.0, 0.1)
    }
    for name, start in (("all images", base), ("200 images", few)):
        found |= {
            f"base, {name}": start,
            f"constant rate, {name}": replace(start, schedule="constant"),
            f"no weight decay, {name}": replace(start, weight_decay=0.0),
            f"weight decay 0.5, {name}": replace(start, weight_decay=0.5),
            f"weight decay 0.5 on everything, {name}": replace(start, weight_decay=0.5, decay_all=True),
            f"smoothing 0.1, {name}": replace(start, smoothing=0.1),
            f"no clipping, {name}": replace(start, clip=float("inf")),
            f"augmentation, {name}": replace(start, augment=True),
        }
    longer = replace(base, steps=3 * base.steps)
    found["base, all images, longer"] = longer
    found["augmentation, all images, longer"] = replace(longer, augment=True)
    return found


def main() -> None:
    """Run every recipe with every seed and write one row a run."""
    torch.set_num_threads(1)
    with RESULTS.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("recipe", "seed", f"right_of_{TEST}", "last_train_loss", "test_loss"))
        for seed in SEEDS:
            made: dict[Recipe, Run] = {}  # some recipes have two names
            for name, recipe in recipes().items():
                done = made[recipe] = made.get(recipe) or run(recipe, seed)
                last = sum(done.losses[-50:]) / 50
                writer.writerow((name, seed, done.right, f"{last:.4f}", f"{done.tests[-1][1]:.4f}"))
                file.flush()


if __name__ == "__main__":
    main()
