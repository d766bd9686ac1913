"""Inputs for checks that train: handwritten digits, split, turned and relabelled anew by every draw.

The digits (scikit-learn, 1797 of 8 x 8 pixels) can be had at home. A model trained there does not help: the
hidden images are turned or mirrored, their classes have other numbers, and the labels of the images that
count never enter the sandbox.
"""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits

from autograder.probes import Inputs
from autograder.spec import Draw
from autograder.training_checks import SmallViT

CALIBRATION = Path(__file__).with_name("calibration.json")
MODEL = {
    "image_size": 8,
    "patch_size": 2,
    "in_channels": 1,
    "num_classes": 10,
    "dim": 32,
    "depth": 2,
    "num_heads": 4,
    "mlp_dim": 64,
}


@cache
def _digits() -> tuple[torch.Tensor, torch.Tensor]:
    data = load_digits()
    return torch.tensor(data.images, dtype=torch.float32)[:, None] / 8 - 1, torch.tensor(data.target)


def digits(draw: Draw) -> tuple[torch.Tensor, torch.Tensor]:
    """Return all digits (1797, 1, 8, 8), -1 paper to 1 ink, and labels, in the order and view of a draw."""
    images, labels = _digits()
    order = draw.order(len(labels))
    images = images[order].rot90(draw.integer(0, 3), (2, 3))
    images = images.flip(3) if draw.integer(0, 1) else images
    return images.contiguous(), draw.order(10)[labels[order]]


def started(draw: Draw, **sizes: int) -> dict[str, torch.Tensor]:
    """Return the state of a new model."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(draw.integer(0, 2**31))
        return dict(SmallViT(**sizes).state_dict())


def enough(exercise: str) -> dict[str, float]:
    """Return the reference's accuracy and the one that is enough, as `make calibrate` measured them."""
    measured = json.loads(CALIBRATION.read_text())["cpu"].get(exercise, {"reference": 1.0, "floor": 0.0})
    return {name: measured[name] for name in ("reference", "floor")}


def training(
    count: int, tests: int = 0, *, batch_size: int, kept: dict[str, Any] | None = None, **call: Any
) -> Callable[[Draw], Inputs]:
    """Draw a new model, `count` digits to train it on, and `tests` others."""

    def draw_training(draw: Draw) -> Inputs:
        images, labels = digits(draw)
        return {
            "images": images[:count],
            "labels": labels[:count],
            "batch_size": batch_size,
            "seed": draw.integer(1, 10_000),
            "device": "cpu",
            **call,
            "_model": MODEL,
            "_state": started(draw, **MODEL),
            "_test_images": images[count : count + max(tests, 1)],
            "_kept": {"labels": labels[count : count + tests], **(kept or {})},
        }

    return draw_training
