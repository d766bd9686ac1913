"""Angles as complex numbers, meshgrids, matrices for the resize, and torch's own cosine similarity."""

import torch
import torch.nn.functional as F


def sinusoidal_1d(num_positions: int, dim: int, base: float = 10000.0) -> torch.Tensor:
    if dim % 2 != 0:
        raise ValueError(f"embedding dimension {dim} is odd")
    exponent = torch.linspace(0, 1, dim // 2 + 1, dtype=torch.float64)[:-1]
    angle = torch.arange(num_positions, dtype=torch.float64)[:, None] * base**-exponent
    turned = torch.polar(torch.ones_like(angle), torch.pi / 2 - angle)  # real part sin, imaginary part cos
    return torch.view_as_real(turned).reshape(num_positions, dim).to(torch.get_default_dtype())


def sinusoidal_2d(grid_height: int, grid_width: int, dim: int, base: float = 10000.0) -> torch.Tensor:
    if dim % 2 != 0:
        raise ValueError(f"dim {dim} is odd")
    row, column = torch.meshgrid(torch.arange(grid_height), torch.arange(grid_width), indexing="ij")
    first = sinusoidal_1d(grid_height, dim // 2, base)[row.flatten()]
    second = sinusoidal_1d(grid_width, dim // 2, base)[column.flatten()]
    return torch.cat([first, second], dim=-1)


def learned_2d(row_embed: torch.Tensor, col_embed: torch.Tensor) -> torch.Tensor:
    (height, half), (width, other) = row_embed.shape, col_embed.shape
    if half != other:
        raise ValueError(f"D/2 is {half} for rows and {other} for columns")
    index = torch.arange(height * width, device=row_embed.device)
    return torch.cat([row_embed[index // width], col_embed[index % width]], dim=1)


def _matrix(old: int, new: int, like: torch.Tensor) -> torch.Tensor:
    """Return the (new, old) matrix of the one-dimensional resize."""
    unit = torch.eye(old, dtype=like.dtype, device=like.device)[:, None, :, None]
    return F.interpolate(unit, size=(new, 1), mode="bicubic", align_corners=False)[:, 0, :, 0].T


def interpolate_position_embedding(pos_embed, old_grid, new_grid):
    if pos_embed.shape[1] != old_grid[0] * old_grid[1] + 1:
        raise ValueError(f"{pos_embed.shape[1]} position embeddings do not fill {old_grid}")
    down, across = (_matrix(old, new, pos_embed) for old, new in zip(old_grid, new_grid, strict=True))
    grid = pos_embed[0, 1:].unflatten(0, tuple(old_grid))
    grid = torch.einsum("rh,hwd,cw->rcd", down, grid, across)
    return torch.cat([pos_embed[0, :1], grid.flatten(0, 1)])[None]


def position_similarity(pos_embed, grid):
    _, count, dim = pos_embed.shape
    if count != grid[0] * grid[1] + 1:
        raise ValueError(f"expected {grid[0] * grid[1] + 1} position embeddings, got {count}")
    field = pos_embed[:, 1:].reshape(*grid, dim)
    return F.cosine_similarity(field[:, :, None, None], field[None, None], dim=-1)
