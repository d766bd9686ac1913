"""Inputs for checks that train: handwritten digits, split, turned and relabelled anew by every draw.

The digits (scikit-learn, 1797 of 8 x 8 pixels) can be had at home. A model trained there does not help: the
hidden images are turned or mirrored, their classes have other numbers, and the labels of the images that
count never enter the sandbox.
"""

import json
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from autograder.probes import Inputs
from autograder.reference import fractal_vit
from autograder.reference.fine_tuning import adapt_state_dict
from autograder.spec import Draw
from autograder.training_checks import SmallViT

FOLDER = "AUTOGRADER_IMAGES"  # the environment variable that names images for the checks on a GPU
CALIBRATION = Path(__file__).with_name("calibration.json")
UNCALIBRATED = {"reference": 1.0, "floor": 0.0}
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


LARGER = {
    "image_size": 32,
    "patch_size": 4,
    "in_channels": 3,
    "num_classes": 10,
    "dim": 192,
    "depth": 6,
    "num_heads": 3,
    "mlp_dim": 768,
}


@cache
def _digits() -> tuple[torch.Tensor, torch.Tensor]:
    from sklearn.datasets import load_digits  # here: grading imports this file, and few assignments train

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


def enough(exercise: str, tier: str = "cpu") -> dict[str, float]:
    """Return the reference's accuracy and the one that is enough, as `make calibrate` measured them."""
    measured = json.loads(CALIBRATION.read_text()).get(tier, {}).get(exercise, UNCALIBRATED)
    return {name: measured[name] for name in ("reference", "floor")}


def _inputs(
    draw: Draw,
    data: tuple[torch.Tensor, torch.Tensor],
    count: int,
    tests: int,
    kept: dict[str, Any] | None,
    call: dict[str, Any],
) -> Inputs:
    """Return a call for the first `count` images, and `tests` others whose labels are kept."""
    images, labels = data
    return {
        "images": images[:count].contiguous(),
        "labels": labels[:count],
        "seed": draw.integer(1, 10_000),
        **call,
        "_test_images": images[count : count + max(tests, 1)].contiguous(),
        "_kept": {"labels": labels[count : count + tests], **(kept or {})},
    }


def training(
    count: int, tests: int = 0, *, kept: dict[str, Any] | None = None, **call: Any
) -> Callable[[Draw], Inputs]:
    """Draw a new model, `count` digits to train it on, and `tests` others."""

    def draw_training(draw: Draw) -> Inputs:
        inputs = _inputs(draw, digits(draw), count, tests, kept, {"device": "cpu", **call})
        return {**inputs, "_model": MODEL, "_state": started(draw, **MODEL)}

    return draw_training


def fine_tuning(
    count: int, tests: int = 0, *, kept: dict[str, Any] | None = None, **call: Any
) -> Callable[[Draw], Inputs]:
    """Draw as `training` does, for the model pre-trained on fractals: a new head, and larger digits."""
    size, patch = fractal_vit.SIZES["image_size"], fractal_vit.SIZES["patch_size"]

    def draw_fine_tuning(draw: Draw) -> Inputs:
        inputs = _inputs(draw, digits(draw), count, tests, kept, {"device": "cpu", **call})
        for name in ("images", "_test_images"):
            inputs[name] = F.interpolate(inputs[name], (size, size), mode="bilinear", align_corners=False)
        state = adapt_state_dict(fractal_vit.pretrained_state(), patch, size, size, 10)
        return {**inputs, "_model": {**fractal_vit.SIZES, "num_classes": 10}, "_state": state}

    return draw_fine_tuning


def image_folder() -> Path | None:
    """Return the folder of images, one sub-folder a class, that checks on a GPU draw from, or None."""
    named = os.environ.get(FOLDER)
    return Path(named) if named and Path(named).is_dir() else None


@cache
def _photographs(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return all images of the folder, (n, 3, size, size) from 0 to 255, and labels."""
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    folder = image_folder()
    if folder is None:
        raise ValueError(f"{FOLDER} must name a folder of images, one sub-folder a class")
    to_size = v2.Compose([v2.PILToTensor(), v2.Resize((size, size)), v2.Lambda(lambda image: image[:3])])
    pairs = ImageFolder(str(folder), transform=to_size)
    loader = DataLoader(pairs, batch_size=512, num_workers=min(8, os.cpu_count() or 1))
    images, labels = zip(*loader, strict=True)
    return torch.cat(images), torch.cat(labels)


def on_gpu(
    count: int, tests: int = 0, *, kept: dict[str, Any] | None = None, **call: Any
) -> Callable[[Draw], Inputs]:
    """Draw a larger model for photographs of 32 x 32 pixels, mirrored and relabelled anew by every draw."""

    def draw_on_gpu(draw: Draw) -> Inputs:
        images, labels = _photographs(LARGER["image_size"])
        order = draw.order(len(labels))[: count + max(tests, 1)]
        images, labels = images[order][:, draw.order(3)], draw.order(10)[labels[order] % 10]
        images = images.flip(3) if draw.integer(0, 1) else images
        inputs = _inputs(draw, (images, labels), count, tests, kept, {"device": "cuda", **call})
        return {**inputs, "_model": LARGER, "_state": started(draw, **LARGER)}

    return draw_on_gpu
