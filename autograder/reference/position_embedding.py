"""Position embeddings: fixed sines and cosines, two dimensions, another image size, similarity.

Vaswani et al. 2017, section 3.5 (sines and cosines); Dosovitskiy et al. 2021, section 3.2 (interpolation),
section 4.5 and figure 7 (similarity), appendix D.4 (two dimensions).
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Grid = tuple[int, int]


def sinusoidal_1d(num_positions: int, dim: int, base: float = 10000.0) -> Float[Tensor, "N D"]:
    """Return PE(p, 2i) = sin(p / base^(2i/D)) and PE(p, 2i+1) = cos of the same, in torch's default dtype.

    Raises ValueError when dim is odd, since sines and cosines come in pairs.
    """
    if dim % 2 != 0:
        raise ValueError(f"dim must be even, got {dim}")
    position = torch.arange(num_positions, dtype=torch.get_default_dtype())  # p
    exponent = torch.arange(0, dim, 2, dtype=torch.get_default_dtype()) / dim  # 2i / D
    angle = position[:, None] / base**exponent  # (N, D/2)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)


def sinusoidal_2d(
    grid_height: int, grid_width: int, dim: int, base: float = 10000.0
) -> Float[Tensor, "h*w D"]:
    """Return a table for patches row by row: the first half of D encodes the row, the second half the column.

    Raises ValueError when dim is not divisible by 4, since each half is made of pairs.
    """
    if dim % 4 != 0:
        raise ValueError(f"dim must be divisible by 4, two halves of sine and cosine pairs, got {dim}")
    row = sinusoidal_1d(grid_height, dim // 2, base).repeat_interleave(grid_width, dim=0)  # 0 0 0 1 1 1 ...
    column = sinusoidal_1d(grid_width, dim // 2, base).repeat(grid_height, 1)  # 0 1 2 0 1 2 ...
    return torch.cat([row, column], dim=1)


def learned_2d(
    row_embed: Float[Tensor, "h D/2"], col_embed: Float[Tensor, "w D/2"]
) -> Float[Tensor, "h*w D"]:
    """Return [row_embed(r); col_embed(c)] for every patch (r, c), row by row.

    Raises ValueError when the two halves have different widths.
    """
    if row_embed.shape[1] != col_embed.shape[1]:
        raise ValueError(
            f"row_embed has width {row_embed.shape[1]}, col_embed {col_embed.shape[1]}; they must be equal"
        )
    row = row_embed.repeat_interleave(len(col_embed), dim=0)  # 0 0 0 1 1 1 ...
    column = col_embed.repeat(len(row_embed), 1)  # 0 1 2 0 1 2 ...
    return torch.cat([row, column], dim=1)


def interpolate_position_embedding(
    pos_embed: Float[Tensor, "1 1+h*w D"], old_grid: Grid, new_grid: Grid
) -> Float[Tensor, "1 1+h'*w' D"]:
    """Resize the embeddings of the patches to new_grid; that of [CLS] has no place and stays as it is.

    Grids are (height, width) in patches. Bicubic, align_corners=False, no antialias. Raises ValueError when
    pos_embed does not hold one embedding for [CLS] and one for each patch of old_grid.
    """
    height, width = old_grid
    if pos_embed.shape[1] != 1 + height * width:
        raise ValueError(
            f"pos_embed holds {pos_embed.shape[1]} positions, old_grid {old_grid} needs {1 + height * width}"
        )
    cls, patches = pos_embed[:, :1], pos_embed[:, 1:]
    image = patches.transpose(1, 2).unflatten(2, (height, width))  # (1, D, h, w): D channels
    image = F.interpolate(image, size=tuple(new_grid), mode="bicubic", align_corners=False, antialias=False)
    return torch.cat([cls, image.flatten(2).transpose(1, 2)], dim=1)


def position_similarity(pos_embed: Float[Tensor, "1 1+h*w D"], grid: Grid) -> Float[Tensor, "h w h w"]:
    """Return cos(e_p, e_q) = e_p·e_q / (|e_p| |e_q|) of every two patches p = (r, c) and q = (r', c').

    Raises ValueError when pos_embed does not hold one embedding for [CLS] and one for each patch of grid.
    """
    height, width = grid
    if pos_embed.shape[1] != 1 + height * width:
        raise ValueError(
            f"pos_embed holds {pos_embed.shape[1]} positions, grid {grid} needs {1 + height * width}"
        )
    patches = pos_embed[0, 1:]
    unit = patches / patches.norm(dim=-1, keepdim=True)  # length 1
    similarity = unit @ unit.T
    return similarity.reshape(height, width, height, width)
