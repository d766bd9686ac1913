"""The table computed by NumPy, indices by divmod, one shared check."""

import numpy as np
import torch
import torch.nn.functional as F


def sinusoidal_1d(num_positions, dim, base=10000.0):
    pairs, rest = divmod(dim, 2)
    if rest:
        raise ValueError(f"dim must be a multiple of 2: {dim}")
    angle = np.arange(num_positions)[:, None] / np.power(base, 2 * np.arange(pairs) / dim)
    table = np.empty((num_positions, dim))
    table[:, ::2], table[:, 1::2] = np.sin(angle), np.cos(angle)
    return torch.from_numpy(table).to(torch.get_default_dtype())


def sinusoidal_2d(grid_height, grid_width, dim, base=10000.0):
    quarter, rest = divmod(dim, 4)
    if rest:
        raise ValueError(f"dim must be a multiple of 4: {dim}")
    rows, columns = (sinusoidal_1d(size, 2 * quarter, base) for size in (grid_height, grid_width))
    return learned_2d(rows, columns)


def learned_2d(row_embed, col_embed):
    if row_embed.shape[1:] != col_embed.shape[1:]:
        raise ValueError("row_embed and col_embed differ in width")
    height, width = len(row_embed), len(col_embed)
    table = row_embed.new_empty(height * width, 2 * row_embed.shape[1])
    for place in range(height * width):
        row, column = divmod(place, width)
        table[place] = torch.cat([row_embed[row], col_embed[column]])
    return table


def _patches(pos_embed, grid):
    height, width = grid
    if pos_embed.size(1) - 1 != height * width:
        raise ValueError(f"pos_embed has {pos_embed.size(1) - 1} patches, the grid {height} * {width}")
    return pos_embed[0, 1:].reshape(height, width, -1)


def interpolate_position_embedding(pos_embed, old_grid, new_grid):
    channels = _patches(pos_embed, old_grid).movedim(-1, 0)
    resized = [F.interpolate(c[None, None], tuple(new_grid), mode="bicubic")[0, 0] for c in channels]
    resized = torch.stack(resized, dim=-1)
    return torch.cat([pos_embed[:, :1], resized.reshape(1, -1, pos_embed.shape[-1])], dim=1)


def position_similarity(pos_embed, grid):
    patches = _patches(pos_embed, grid)
    unit = patches / torch.linalg.vector_norm(patches, dim=-1, keepdim=True)
    return torch.tensordot(unit, unit, dims=([2], [2]))
