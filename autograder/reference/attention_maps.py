"""Reading attention: maps of every layer, rollout (Abnar & Zuidema 2020), mean attention distance.

Dosovitskiy et al. 2021, section 4.5 and appendix D.7 and D.8.
Shapes: B images, h heads, N patches, T = N + 1 tokens.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from autograder.reference.attention import scaled_dot_product_attention, split_heads


def record_attention(model: nn.Module, images: Float[Tensor, "B C H W"]) -> list[Float[Tensor, "B h T T"]]:
    """Return the attention weights of every block of a contract model, first block first.

    The weights are computed from what norm1 hands to the attention, which need not expose them. The model
    runs in evaluation mode. Afterwards, also after an error, its modes and hooks are as they were.
    """
    recorded: list[Tensor] = []

    def hook_for(attention: Any) -> Any:
        def record(module: nn.Module, inputs: Any, normed: Tensor) -> None:
            q, k, _ = attention.qkv(normed).chunk(3, dim=-1)
            q, k = split_heads(q, attention.num_heads), split_heads(k, attention.num_heads)
            _, weights = scaled_dot_product_attention(q, k, k)
            recorded.append(weights)

        return record

    blocks: Any = model.blocks
    modes = {module: module.training for module in model.modules()}
    hooks = [block.norm1.register_forward_hook(hook_for(block.attn)) for block in blocks]
    try:
        model.eval()(images)
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes.items():
            module.training = training
    return recorded


def attention_rollout(attentions: Sequence[Float[Tensor, "B h T T"]]) -> Float[Tensor, "B T T"]:
    """Return how much of every first token each last token holds, when attention is all that mixes them.

    The identity stands for the residual connection. Row i of the result belongs to output token i.
    """
    first = attentions[0]
    identity = torch.eye(first.shape[-1], dtype=first.dtype, device=first.device)
    rollout = identity
    for attention in attentions:
        mixing = attention.mean(dim=1) + identity
        mixing = mixing / mixing.sum(dim=-1, keepdim=True)
        rollout = mixing @ rollout
    return rollout


def cls_attention_map(rollout: Float[Tensor, "B T T"], grid: tuple[int, int]) -> Float[Tensor, "B h w"]:
    """Return the [CLS] row over patches as a picture, each image scaled to a maximum of 1; zeros stay zeros.

    Raises ValueError when grid (height, width) does not hold as many patches as rollout.
    """
    height, width = grid
    row = rollout[:, 0, 1:]
    if row.shape[-1] != height * width:
        raise ValueError(f"grid {grid} holds {height * width} patches, rollout has {row.shape[-1]}")
    largest = row.amax(dim=-1, keepdim=True)
    scaled = row / torch.where(largest > 0, largest, 1)
    return scaled.reshape(-1, height, width)


def mean_attention_distance(
    weights: Float[Tensor, "B h T T"], grid: tuple[int, int], patch_size: int
) -> Float[Tensor, " h"]:
    """Return how far each head looks: the mean distance of patch centres in pixels, weighted by attention.

    [CLS] is left out and rows are scaled to sum to one again; the mean is over images and query patches.
    Raises ValueError when grid (height, width) does not fit weights or patch_size is not positive.
    """
    height, width = grid
    if patch_size <= 0:
        raise ValueError(f"patch_size must be positive, got {patch_size}")
    among_patches = weights[:, :, 1:, 1:]
    if among_patches.shape[-1] != height * width:
        raise ValueError(f"grid {grid} holds {height * width} patches, weights has {among_patches.shape[-1]}")
    among_patches = among_patches / among_patches.sum(dim=-1, keepdim=True)
    rows = torch.arange(height, dtype=weights.dtype, device=weights.device).repeat_interleave(width)
    columns = torch.arange(width, dtype=weights.dtype, device=weights.device).repeat(height)
    apart = torch.sqrt((rows[:, None] - rows) ** 2 + (columns[:, None] - columns) ** 2)  # in patches, (N, N)
    return (among_patches * apart * patch_size).sum(dim=-1).mean(dim=(0, 2))
