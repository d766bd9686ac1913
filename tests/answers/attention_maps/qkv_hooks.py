"""Hooks on attn.qkv, einsum, and torch's own functions for sums and distances."""

from contextlib import ExitStack
from functools import reduce

import torch
import torch.nn.functional as F


@torch.no_grad()
def record_attention(model, images):
    attentions = [None] * len(model.blocks)

    def hook(index, num_heads):
        def keep(module, inputs, output):
            batch, tokens, width = output.shape
            q, k, _ = output.view(batch, tokens, 3, num_heads, width // 3 // num_heads).unbind(2)
            scores = torch.einsum("bihd,bjhd->bhij", q, k) * q.shape[-1] ** -0.5
            attentions[index] = torch.softmax(scores, -1)

        return keep

    training = [module for module in model.modules() if module.training]
    with ExitStack() as stack:
        for index, block in enumerate(model.blocks):
            stack.callback(block.attn.qkv.register_forward_hook(hook(index, block.attn.num_heads)).remove)
        stack.callback(lambda: [setattr(module, "training", True) for module in training])
        model.eval()
        model(images)
    return attentions


def attention_rollout(attentions):
    mixed = [a.mean(1) + torch.eye(a.shape[-1]).to(a) for a in attentions]
    mixed = [F.normalize(a, p=1, dim=-1) for a in mixed]
    return reduce(lambda below, above: torch.einsum("bij,bjk->bik", above, below), mixed)


def cls_attention_map(rollout, grid):
    patches = rollout[:, 0, 1:]
    if patches.size(1) != grid[0] * grid[1]:
        raise ValueError(f"grid {grid[0]}x{grid[1]} does not match {patches.size(1)} patches")
    return F.normalize(patches, p=float("inf"), dim=1).unflatten(1, grid)


def mean_attention_distance(weights, grid, patch_size):
    if patch_size < 1:
        raise ValueError(f"patch_size={patch_size}")
    if weights.shape[-1] != grid[0] * grid[1] + 1:
        raise ValueError(f"weights are for {weights.shape[-1] - 1} patches, the grid is {grid}")
    places = torch.cartesian_prod(torch.arange(grid[0]), torch.arange(grid[1])).to(weights)
    distances = torch.cdist(places, places, compute_mode="donot_use_mm_for_euclid_dist") * patch_size
    patches = weights[..., 1:, 1:]
    patches = patches / patches.sum(-1, keepdim=True)
    return torch.einsum("bhij,ij->bhi", patches, distances).mean((0, 2))
