"""Measure what pre-training on fractals is worth for reading digits, and four ways to use it.

python book/fine_tuning_study.py    # about ten minutes on one core; writes fine_tuning_study.csv

Every way trains for the same number of steps on the same labelled digits. Its optimizer and learning rate are
the best of four settings, tried with two seeds and judged by digits that are in neither training nor test.
"""

import csv
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from small_model import accuracy, digits
from torch import Tensor, nn

from autograder.reference.fine_tuning import adapt_state_dict, layerwise_lr_groups
from autograder.reference.fractal_vit import SIZES, pretrained_state
from autograder.reference.vit import VisionTransformer

SIZE, CLASSES = 24, 10  # pixels: pre-training had 16
VALIDATION, BATCH, STEPS, WARM_UP = 437, 32, 100, 10
LABELLED = (10, 50, 200)
TUNING_SEEDS, SEEDS = range(100, 102), range(6)
RESULTS = Path(__file__).with_name("fine_tuning_study.csv")

# Optimizer, learning rate, and where it matters the decay from layer to layer.
USUAL = (("sgd", 0.03), ("sgd", 0.1), ("adamw", 1e-3), ("adamw", 3e-3))
SETTINGS: dict[str, tuple[tuple, ...]] = {
    "from scratch": USUAL,
    "full fine-tuning": USUAL,
    "layer-wise decay": (
        ("sgd", 0.1, 0.75),
        ("sgd", 0.3, 0.75),
        ("adamw", 1e-3, 0.75),
        ("adamw", 3e-3, 0.75),
    ),
    "linear probe": (("sgd", 0.1), ("sgd", 0.3), ("adamw", 3e-3), ("adamw", 1e-2)),
}


def labelled(images: Tensor, labels: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return `count` digits, as many of each class, chosen by torch's global random state."""
    rows = [torch.nonzero(labels == k).flatten() for k in range(CLASSES)]
    chosen = torch.cat([row[torch.randperm(len(row))[: count // CLASSES]] for row in rows])
    return images[chosen], labels[chosen]


def model_for(way: str) -> VisionTransformer:
    """Return the model as it starts: with new weights, or with those that fractals have taught it."""
    model = VisionTransformer(**{**SIZES, "image_size": SIZE, "num_classes": CLASSES})
    if way != "from scratch":
        state = adapt_state_dict(pretrained_state(), SIZES["patch_size"], SIZES["image_size"], SIZE, CLASSES)
        model.load_state_dict(state)
    if way == "linear probe":
        model.requires_grad_(False)
        model.head.requires_grad_(True)
    return model


def trained(way: str, setting: tuple, images: Tensor, labels: Tensor) -> tuple[nn.Module, list[float]]:
    """Train with warm-up, cosine and gradients clipped at norm 1; return the model and every loss."""
    optimizer_name, rate, *decay = setting
    model = model_for(way)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = layerwise_lr_groups(model, rate, *decay) if decay else parameters
    if optimizer_name == "sgd":
        optimizer: torch.optim.Optimizer = torch.optim.SGD(groups, lr=rate, momentum=0.9)
    else:
        optimizer = torch.optim.AdamW(groups, lr=rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    losses = []
    for _ in range(STEPS):
        batch = torch.randperm(len(images))[:BATCH]
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images[batch]), labels[batch])
        loss.backward()
        losses.append(loss.item())
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
    return model.eval(), losses


def factor(step: int) -> float:
    """Return the share of the learning rate at a step."""
    if step < WARM_UP:
        return (step + 1) / WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (step - WARM_UP) / (STEPS - WARM_UP)))


def main() -> None:
    """Tune each way for each number of labels, then measure it with new seeds; write one row a model."""
    torch.set_num_threads(1)
    images, labels, test_images, test_labels = digits(SIZE)
    judges = images[:VALIDATION], labels[:VALIDATION]
    pool = images[VALIDATION:], labels[VALIDATION:]
    rows = []

    def measure(way: str, count: int, setting: tuple, seed: int) -> tuple[int, int]:
        torch.manual_seed(seed)
        model, _ = trained(way, setting, *labelled(*pool, count))
        found = (
            accuracy(model, *judges) * VALIDATION,
            accuracy(model, test_images, test_labels) * len(test_labels),
        )
        return round(found[0]), round(found[1])

    for count in LABELLED:
        for way, settings in SETTINGS.items():
            tried = {each: sum(measure(way, count, each, s)[0] for s in TUNING_SEEDS) for each in settings}
            best = max(tried, key=lambda each: tried[each])
            for seed in SEEDS:
                right = measure(way, count, best, seed)[1]
                rows.append((count, way, "/".join(map(str, best)), seed, right))
            print(*rows[-1][:3], [row[-1] for row in rows[-len(SEEDS) :]], flush=True)
    with RESULTS.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([("labelled", "way", "setting", "seed", f"right_of_{len(test_labels)}"), *rows])


if __name__ == "__main__":
    main()
