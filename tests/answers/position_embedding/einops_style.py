"""Rearrangements written as patterns."""

import torch
from einops import rearrange, repeat
from torch import nn


def _even(dim, parts=2):
    if dim % parts:
        raise ValueError(f"dim={dim} must be divisible by {parts}")


def sinusoidal_1d(num_positions, dim, base=10000.0):
    _even(dim)
    frequency = torch.tensor([base ** (-2 * i / dim) for i in range(dim // 2)])
    angle = torch.outer(torch.arange(num_positions).to(frequency), frequency)
    return rearrange([angle.sin(), angle.cos()], "two n half -> n (half two)")


def sinusoidal_2d(grid_height, grid_width, dim, base=10000.0):
    _even(dim, 4)
    rows = repeat(sinusoidal_1d(grid_height, dim // 2, base), "h d -> (h w) d", w=grid_width)
    columns = repeat(sinusoidal_1d(grid_width, dim // 2, base), "w d -> (h w) d", h=grid_height)
    return torch.hstack([rows, columns])


def learned_2d(row_embed, col_embed):
    if row_embed.shape[-1] != col_embed.shape[-1]:
        raise RuntimeError("row_embed and col_embed do not have the same width")
    rows = repeat(row_embed, "h d -> h w d", w=col_embed.shape[0])
    columns = repeat(col_embed, "w d -> h w d", h=row_embed.shape[0])
    return rearrange([rows, columns], "two h w d -> (h w) (two d)")


def interpolate_position_embedding(pos_embed, old_grid, new_grid):
    height, width = old_grid
    if pos_embed.shape[1] != height * width + 1:
        raise ValueError(f"old grid of {height} x {width} patches needs {height * width + 1} positions")
    image = rearrange(pos_embed[:, 1:], "b (h w) d -> b d h w", h=height, w=width)
    image = nn.Upsample(size=tuple(new_grid), mode="bicubic", align_corners=False)(image)
    return torch.cat([pos_embed[:, :1], rearrange(image, "b d h w -> b (h w) d")], dim=1)


def position_similarity(pos_embed, grid):
    height, width = grid
    if pos_embed.shape[1] != height * width + 1:
        raise ValueError(f"grid={grid}: {height * width} patches, but pos_embed has {pos_embed.shape[1] - 1}")
    patches = rearrange(pos_embed[:, 1:], "1 (h w) d -> h w d", h=height)
    dots = torch.einsum("abd,ced->abce", patches, patches)
    length = patches.pow(2).sum(-1).sqrt()
    return dots / torch.einsum("ab,ce->abce", length, length)
