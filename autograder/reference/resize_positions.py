"""Position embeddings for images of another size (section 3.2 of the paper, last paragraph).

A model that was trained on a grid of 14 × 14 patches has 196 position embeddings. On larger images there are
more patches, so the paper interpolates the embeddings in two dimensions. It does not say how: every library
chose its own way, and `METHODS` lists them by name.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Grid = tuple[int, int]

# Arguments of torch.nn.functional.interpolate. With align_corners the centres of the corner patches stay in
# place, without it the corners of the image do.
METHODS: dict[str, dict[str, Any]] = {
    "bicubic": {"mode": "bicubic", "align_corners": False},  # Hugging Face, and this course
    "bicubic-antialias": {"mode": "bicubic", "align_corners": False, "antialias": True},  # timm
    "bicubic-corners": {"mode": "bicubic", "align_corners": True},  # torchvision
    "bilinear": {"mode": "bilinear", "align_corners": False},
    "linear-zoom": {"mode": "bilinear", "align_corners": True},  # the official JAX code (scipy.ndimage.zoom)
}


def resize_positions(
    pos_embed: Float[Tensor, "1 old_tokens dim"], old_grid: Grid, new_grid: Grid, method: str = "bicubic"
) -> Float[Tensor, "1 new_tokens dim"]:
    """Interpolate the embeddings of the patches; that of [CLS], where there is one, stays as it is.

    Grids are (height, width) in patches. Raises ValueError for an unknown method, and when `pos_embed` holds
    neither h·w nor 1 + h·w embeddings.
    """
    if method not in METHODS:
        raise ValueError(f"method={method!r} is unknown; choose one of {', '.join(METHODS)}")
    if min(new_grid) < 1:
        raise ValueError(f"new_grid={new_grid} must be positive in both directions")
    prefix = pos_embed.shape[1] - old_grid[0] * old_grid[1]
    if prefix not in (0, 1):
        raise ValueError(
            f"pos_embed holds {pos_embed.shape[1]} embeddings, which fit no grid of old_grid={old_grid}; "
            f"give the grid (height, width) of the images it was trained on"
        )
    if tuple(old_grid) == tuple(new_grid):
        return pos_embed
    cls, patches = pos_embed[:, :prefix], pos_embed[:, prefix:]
    image = patches.unflatten(1, old_grid).permute(0, 3, 1, 2)  # (1, dim, height, width)
    resized = F.interpolate(image, size=new_grid, **METHODS[method]).flatten(2).transpose(1, 2)
    return torch.cat([cls, resized], dim=1)
