"""A copy of the model is hooked and run, so that the model itself is never touched; einops elsewhere."""

import copy

import torch
from einops import einsum, rearrange, reduce


def record_attention(model, images):
    watched = copy.deepcopy(model).eval()
    seen = []

    def look(attention, arguments):
        qkv = rearrange(
            attention.qkv(arguments[0]), "b n (three h d) -> three b h n d", three=3, h=attention.num_heads
        )
        seen.append((qkv[0] @ qkv[1].mT / qkv.shape[-1] ** 0.5).softmax(dim=-1))

    for block in watched.blocks:
        block.attn.register_forward_pre_hook(look)
    watched(images)
    return seen


def attention_rollout(attentions):
    stacked = torch.stack(list(attentions)).mean(dim=2)
    stacked = stacked + torch.eye(stacked.shape[-1], dtype=stacked.dtype, device=stacked.device)
    stacked = stacked / reduce(stacked, "l b i j -> l b i 1", "sum")
    result = stacked[-1]
    for layer in reversed(range(len(stacked) - 1)):
        result = result @ stacked[layer]
    return result


def cls_attention_map(rollout, grid):
    h, w = grid
    tokens = rollout.shape[-1]
    if h * w + 1 != tokens:
        raise ValueError(f"{tokens} tokens are not 1 + {h} * {w}, the size of the grid")
    row = rearrange(rollout[:, 0, 1:], "b (h w) -> b h w", h=h, w=w)
    largest = reduce(row, "b h w -> b 1 1", "max")
    return torch.nan_to_num(row / largest, nan=0.0)


def mean_attention_distance(weights, grid, patch_size):
    h, w = grid
    if patch_size <= 0:
        raise ValueError(f"patch_size {patch_size} is not positive")
    if weights.shape[-1] - 1 != h * w:
        raise ValueError(f"{weights.shape[-1] - 1} patches do not fill a grid of {h} x {w}")
    y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    centres = (torch.stack([y.flatten(), x.flatten()], 1).to(weights) + 0.5) * patch_size
    distances = (centres[:, None] - centres[None]).norm(dim=-1)
    patches = weights[:, :, 1:, 1:]
    shares = einsum(patches, distances, "b h i j, i j -> b h i") / reduce(patches, "b h i j -> b h i", "sum")
    return reduce(shares, "b h i -> h", "mean")
