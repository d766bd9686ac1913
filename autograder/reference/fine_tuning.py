"""From a pre-trained model to a new task: head, positions, optimizer step, learning rates by layer.

Dosovitskiy et al. 2021, section 3.2 (head, positions) and appendix B.1.1 with table 4 (SGD with momentum).
Models have timm's names: `patch_embed.proj`, `cls_token`, `pos_embed`, `blocks.i`, `norm`, `head`.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from autograder.reference.patches import num_patches
from autograder.reference.position_embedding import Grid, interpolate_position_embedding

ImageSize = int | tuple[int, int]


def replace_head(model: nn.Module, num_classes: int) -> nn.Module:
    """Put a new linear layer of zeros in the place of `model.head`, change the model in place and return it.

    The new head is trainable, with dtype and device of the old one. Raises ValueError when num_classes is not
    positive.
    """
    if num_classes < 1:
        raise ValueError(f"num_classes must be positive, got {num_classes}")
    old: Any = model.head
    head = nn.Linear(old.in_features, num_classes, dtype=old.weight.dtype, device=old.weight.device)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    model.head = head
    return model


def adapt_state_dict(
    state_dict: dict[str, Tensor],
    patch_size: int,
    old_image_size: ImageSize,
    new_image_size: ImageSize,
    num_classes: int,
) -> dict[str, Tensor]:
    """Return a new state dict for images of another size and another number of classes.

    Positions are interpolated, the head is zero, everything else is equal. Raises ValueError when a size is
    not positive or not divisible by patch_size, num_classes is not positive, or pos_embed does not fit.
    """
    if num_classes < 1:
        raise ValueError(f"num_classes must be positive, got {num_classes}")
    old_grid, new_grid = patch_grid(old_image_size, patch_size), patch_grid(new_image_size, patch_size)
    pos_embed = state_dict["pos_embed"]
    adapted = dict(state_dict)
    adapted["pos_embed"] = interpolate_position_embedding(pos_embed, old_grid, new_grid)
    adapted["head.weight"] = pos_embed.new_zeros(num_classes, pos_embed.shape[-1])
    adapted["head.bias"] = pos_embed.new_zeros(num_classes)
    return adapted


def patch_grid(image_size: ImageSize, patch_size: int) -> Grid:
    """Return the number of patches (down, across). Raises ValueError as `num_patches` does."""
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    num_patches(height, width, patch_size)
    return height // patch_size, width // patch_size


@torch.no_grad()
def sgd_momentum_step(
    params: Sequence[Tensor],
    grads: Sequence[Tensor | None],
    velocities: Sequence[Tensor],
    lr: float,
    momentum: float = 0.9,
) -> None:
    """Update in place: v ← momentum · v + g, then p ← p - lr · v. A gradient of None leaves both as they are.

    Raises ValueError when lr is negative or momentum is not in [0, 1), or the lists differ in length.
    """
    if lr < 0:
        raise ValueError(f"lr must not be negative, got {lr}")
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum must be in [0, 1), got {momentum}")
    if not len(params) == len(grads) == len(velocities):  # before anything changes
        lengths = f"{len(params)} params, {len(grads)} grads, {len(velocities)} velocities"
        raise ValueError(f"one gradient and one velocity for each parameter expected, got {lengths}")
    for parameter, gradient, velocity in zip(params, grads, velocities, strict=True):
        if gradient is not None:
            velocity.mul_(momentum).add_(gradient)
            parameter.sub_(lr * velocity)


def layerwise_lr_groups(model: nn.Module, base_lr: float, decay: float) -> list[dict[str, Any]]:
    """Return optimizer groups in which each layer learns `decay` times as fast as the layer above it.

    Head and final norm have base_lr, block i of L has base_lr · decay^(L-i), the embeddings base_lr ·
    decay^(L+1). Every trainable parameter is in one group. Raises ValueError when base_lr is not positive or
    decay is not in (0, 1].
    """
    if base_lr <= 0:
        raise ValueError(f"base_lr must be positive, got {base_lr}")
    if not 0 < decay <= 1:
        raise ValueError(f"decay must be in (0, 1], got {decay}")
    blocks: Any = model.blocks
    depth = len(blocks)
    layers: dict[int, list[Tensor]] = {}  # steps below the head: parameters
    for name, parameter in model.named_parameters():
        first, *rest = name.split(".")
        if not parameter.requires_grad:
            continue
        below = 0 if first in ("head", "norm") else depth - int(rest[0]) if first == "blocks" else depth + 1
        layers.setdefault(below, []).append(parameter)
    return [{"params": layers[below], "lr": base_lr * decay**below} for below in sorted(layers)]


def fine_tune(
    model: nn.Module,
    images: Float[Tensor, "n C H W"],
    labels: Int[Tensor, " n"],
    *,
    steps: int,
    batch_size: int,
    lr: float,
    seed: int,
    device: str,
) -> dict[str, list[float]]:
    """Fine-tune all of the model in place; return {"loss": the loss of each step}.

    SGD with momentum 0.9, no weight decay, gradients clipped at norm 1, the learning rate a cosine from lr
    to zero (Dosovitskiy et al. 2021, Table 4). The model comes with its new head. Equal seeds give equal
    results.
    """
    torch.manual_seed(seed)
    model.to(device).train()
    images, labels = images.to(device), labels.to(device)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    velocities = [torch.zeros_like(parameter) for parameter in parameters]
    order, history = torch.randperm(len(images)).to(device), []
    for step in range(steps):
        if step and len(order) < batch_size:
            order = torch.randperm(len(images)).to(device)
        batch, order = order[:batch_size], order[batch_size:]
        model.zero_grad()
        loss = F.cross_entropy(model(images[batch]), labels[batch])
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        rate = lr * (1 + math.cos(math.pi * step / steps)) / 2
        sgd_momentum_step(parameters, [parameter.grad for parameter in parameters], velocities, rate)
        history.append(loss.detach())
    return {"loss": torch.stack(history).tolist()}
