"""The Vision Transformer (Dosovitskiy et al. 2021, section 3.1, equations 1 to 4), and its size in numbers.

Shapes: B images, C channels, patch size P, N = H·W / P² patches, width D, K classes.
"""

from collections import OrderedDict

import torch
from jaxtyping import Float
from torch import Tensor, nn

from autograder.reference.encoder import EncoderBlock
from autograder.reference.patches import num_patches


class VisionTransformer(nn.Module):
    """Images to logits, with timm's names. `image_size` is an int or (height, width) in pixels.

    `pool` is "cls" or "gap". Raises ValueError for an unknown pool, sizes that are not positive or not
    divisible, and images of another size.
    """

    def __init__(
        self,
        image_size: int | tuple[int, int],
        patch_size: int,
        in_channels: int,
        num_classes: int,
        dim: int,
        depth: int,
        num_heads: int,
        mlp_dim: int,
        pool: str = "cls",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if pool not in ("cls", "gap"):
            raise ValueError(f"pool must be 'cls' or 'gap', got {pool!r}")
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        count = num_patches(height, width, patch_size)
        self.image_size, self.pool = (height, width), pool
        projection = nn.Conv2d(in_channels, dim, kernel_size=patch_size, stride=patch_size)
        self.patch_embed = nn.Sequential(OrderedDict(proj=projection))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.randn(1, count + 1, dim) * 0.02)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(*(EncoderBlock(dim, num_heads, mlp_dim, dropout) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, num_classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K"]:
        """Classify the images."""
        if images.shape[-2:] != self.image_size:
            raise ValueError(
                f"images are {tuple(images.shape[-2:])} pixels, the model is for {self.image_size}"
            )
        tokens = self.patch_embed(images).flatten(2).transpose(1, 2)  # x_p E
        cls = self.cls_token.expand(images.shape[0], -1, -1)
        z = self.dropout(torch.cat([cls, tokens], dim=1) + self.pos_embed)  # equation 1: z_0
        z = self.blocks(z)  # equations 2 and 3: z_L
        return self.head(pool_tokens(self.norm(z), self.pool))  # equation 4: y = LN(z_L⁰) with pool "cls"


def pool_tokens(tokens: Float[Tensor, "B N+1 D"], pool: str) -> Float[Tensor, "B D"]:
    """Return the [CLS] token ("cls") or the mean of the patch tokens ("gap").

    Raises ValueError for another pool.
    """
    if pool == "cls":
        return tokens[:, 0]
    if pool == "gap":
        return tokens[:, 1:].mean(dim=1)
    raise ValueError(f"pool must be 'cls' or 'gap', got {pool!r}")


def parameter_count(
    image_size: int | tuple[int, int],
    patch_size: int,
    in_channels: int,
    num_classes: int,
    dim: int,
    depth: int,
    mlp_dim: int,
) -> int:
    """Return the number of parameters of `VisionTransformer`, which does not depend on the number of heads.

    Raises ValueError when a size is not positive or not divisible by patch_size.
    """
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    tokens = num_patches(height, width, patch_size) + 1
    embedding = patch_size**2 * in_channels * dim + dim + dim + tokens * dim  # E and its bias, [CLS], E_pos
    attention = dim * 3 * dim + 3 * dim + dim * dim + dim  # qkv, proj
    mlp = dim * mlp_dim + mlp_dim + mlp_dim * dim + dim  # fc1, fc2
    norm = 2 * dim  # weight, bias
    head = dim * num_classes + num_classes
    return embedding + depth * (norm + attention + norm + mlp) + norm + head


def macs_per_image(
    image_size: int | tuple[int, int],
    patch_size: int,
    in_channels: int,
    num_classes: int,
    dim: int,
    depth: int,
    mlp_dim: int,
) -> int:
    """Return the multiply-accumulates of all matrix products for one image: rows x inputs x outputs of each.

    Raises ValueError when a size is not positive or not divisible by patch_size.
    """
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    patches = num_patches(height, width, patch_size)
    tokens = patches + 1
    projection = patches * (patch_size**2 * in_channels) * dim
    qkv_and_proj = tokens * dim * 3 * dim + tokens * dim * dim
    scores_and_mix = tokens * tokens * dim + tokens * tokens * dim  # Q Kᵀ and A V, all heads together
    mlp = tokens * dim * mlp_dim + tokens * mlp_dim * dim
    return projection + depth * (qkv_and_proj + scores_and_mix + mlp) + dim * num_classes
