"""The model before its first update: fresh, or pre-trained and made ready for another task."""

from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from autograder.reference import weights
from autograder.reference.trainer import checkpoint
from autograder.reference.trainer.recipe import Recipe
from autograder.reference.trainer.stream import random_seed
from autograder.reference.variants import CONVENTIONS
from autograder.reference.vit import VisionTransformer, for_fine_tuning


def build(recipe: Recipe, classes: int, file: Path | None) -> VisionTransformer:
    """Return the model that the recipe starts from. It is the same in every process.

    `file` holds the weights of a recipe that is `pretrained`: a checkpoint of this trainer (.pt), the
    authors' weights (.npz) or timm's (.safetensors). Raises ValueError when it is missing, not wanted or
    does not fit.
    """
    torch.manual_seed(random_seed(recipe.seed, "weights"))
    if not recipe.pretrained:
        if file is not None:
            raise ValueError(f"weights={str(file)!r}: recipe {recipe.name!r} starts without; leave them out")
        size = recipe.sizes["dim"] if recipe.representation else None
        return _model(recipe, recipe.image_size, classes, size, {})
    if file is None:
        raise ValueError(f"recipe {recipe.name!r} needs pre-trained weights; name a file with --weights")
    values, options = _read(file)
    head, representation = values.get("head.weight"), values.get("pre_logits.fc.weight")
    side = int((values["pos_embed"].shape[1] - 1) ** 0.5) if "pos_embed" in values else 1
    old = _model(
        recipe,
        side * recipe.sizes["patch_size"],
        0 if head is None else len(head),
        None if representation is None else len(representation),
        options,
    )
    weights.load(old, values, source="timm")  # the names are ours by now, which are timm's
    return for_fine_tuning(old, classes, recipe.image_size)


def _model(
    recipe: Recipe, image_size: int, classes: int, representation: int | None, options: dict[str, Any]
) -> VisionTransformer:
    return VisionTransformer(
        image_size=image_size,
        in_channels=recipe.channels,
        num_classes=classes,
        dropout=recipe.dropout,
        representation_size=representation,
        **(recipe.sizes | options),
    )


def _read(file: Path) -> tuple[weights.Weights, dict[str, Any]]:
    """Return the weights by our names, and the options of the model that they were trained in."""
    if not file.exists():
        raise ValueError(f"weights={str(file)!r} does not exist; name a file .pt, .npz or .safetensors")
    if file.suffix == ".npz":
        return weights.SOURCES["jax"](np.load(file)), CONVENTIONS["jax"]
    if file.suffix == ".safetensors":
        return safetensors.torch.load_file(file), CONVENTIONS["timm"]
    state = checkpoint.read(file)
    return state.get("average") or state["model"], {}
