"""The way that most tutorials write it: a table of zeros, filled by slices; broadcasting over the grid."""

import math

import torch
import torch.nn.functional as F


def sinusoidal_1d(num_positions, dim, base=10000.0):
    if dim % 2 == 1:
        raise ValueError(f"Cannot use sin/cos positional encoding with odd dim (got dim={dim})")
    pe = torch.zeros(num_positions, dim)
    position = torch.arange(0, num_positions, dtype=torch.float).unsqueeze(1)
    div_term = torch.exp(torch.arange(0, dim, 2).float() * (-math.log(base) / dim))
    pe[:, 0::2] = torch.sin(position * div_term)
    pe[:, 1::2] = torch.cos(position * div_term)
    return pe


def sinusoidal_2d(grid_height, grid_width, dim, base=10000.0):
    if dim % 4 != 0:
        raise ValueError(f"dim has to be a multiple of four, not {dim}")
    pe = torch.zeros(grid_height, grid_width, dim)
    pe[:, :, : dim // 2] = sinusoidal_1d(grid_height, dim // 2, base).unsqueeze(1)
    pe[:, :, dim // 2 :] = sinusoidal_1d(grid_width, dim // 2, base).unsqueeze(0)
    return pe.view(grid_height * grid_width, dim)


def learned_2d(row_embed, col_embed):
    assert row_embed.size(1) == col_embed.size(1), "both halves need the same width"
    h, w = row_embed.size(0), col_embed.size(0)
    rows = row_embed.unsqueeze(1).expand(-1, w, -1)
    cols = col_embed.unsqueeze(0).expand(h, -1, -1)
    return torch.cat((rows, cols), dim=-1).reshape(h * w, -1)


def interpolate_position_embedding(pos_embed, old_grid, new_grid):
    if pos_embed.shape[1] - 1 != old_grid[0] * old_grid[1]:
        raise ValueError(f"old_grid {old_grid} does not match pos_embed of shape {tuple(pos_embed.shape)}")
    dim = pos_embed.shape[-1]
    cls_pos = pos_embed[:, 0:1, :]
    patch_pos = pos_embed[:, 1:, :]
    patch_pos = patch_pos.reshape(1, old_grid[0], old_grid[1], dim).permute(0, 3, 1, 2)
    patch_pos = F.interpolate(patch_pos, size=new_grid, mode="bicubic", align_corners=False)
    patch_pos = patch_pos.permute(0, 2, 3, 1).reshape(1, -1, dim)
    return torch.cat((cls_pos, patch_pos), dim=1)


def position_similarity(pos_embed, grid):
    h, w = grid
    if pos_embed.shape[1] != h * w + 1:
        raise ValueError(f"grid {h}x{w} does not match {pos_embed.shape[1]} positions")
    patches = F.normalize(pos_embed[0, 1:], dim=-1)
    return (patches @ patches.T).view(h, w, h, w)
