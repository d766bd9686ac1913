"""From patches to z_0 = [x_class; x_p¹E; …; x_pᴺE] + E_pos (Dosovitskiy et al. 2021, equation 1)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


def embed_patches(
    patches: Float[Tensor, "B N P*P*C"],
    weight: Float[Tensor, "P*P*C D"],
    bias: Float[Tensor, " D"] | None = None,
) -> Float[Tensor, "B N D"]:
    """Return x_p E + b: every patch through the same linear map."""
    tokens = patches @ weight
    if bias is not None:
        tokens = tokens + bias
    return tokens


def prepend_cls_token(
    tokens: Float[Tensor, "B N D"], cls_token: Float[Tensor, "1 1 D"]
) -> Float[Tensor, "B N+1 D"]:
    """Put the learnable [CLS] token before the tokens of every image."""
    batch = tokens.shape[0]
    return torch.cat([cls_token.expand(batch, -1, -1), tokens], dim=1)


def add_position_embedding(
    tokens: Float[Tensor, "B N+1 D"], position_embedding: Float[Tensor, "1 N+1 D"]
) -> Float[Tensor, "B N+1 D"]:
    """Add E_pos to the tokens of every image. Raises ValueError when the numbers of tokens differ."""
    if tokens.shape[1:] != position_embedding.shape[1:]:
        raise ValueError(
            f"position_embedding is for tokens of shape {tuple(position_embedding.shape[1:])}, "
            f"tokens has {tuple(tokens.shape[1:])}"
        )
    return tokens + position_embedding


class PatchEmbedding(nn.Module):
    """Images to z_0. `image_size` is an int or (height, width) in pixels.

    Parameters `proj.weight (D, C, P, P)`, `proj.bias`, `cls_token (1, 1, D)` and `pos_embed (1, N+1, D)`.
    Raises ValueError when image_size is not divisible by patch_size or images have another size.
    """

    def __init__(
        self, image_size: int | tuple[int, int], patch_size: int, in_channels: int, dim: int
    ) -> None:
        super().__init__()
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        if patch_size <= 0:
            raise ValueError(f"patch_size must be positive, got {patch_size}")
        if height <= 0 or width <= 0:
            raise ValueError(f"image_size must be positive, got {image_size}")
        if height % patch_size != 0 or width % patch_size != 0:
            raise ValueError(f"image_size {image_size} is not divisible by patch_size {patch_size}")
        self.image_size = (height, width)
        count = (height // patch_size) * (width // patch_size)
        self.proj = nn.Conv2d(in_channels, dim, kernel_size=patch_size, stride=patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.randn(1, count + 1, dim) * 0.02)

    def forward(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B N+1 D"]:
        """Return z_0."""
        if images.shape[-2:] != self.image_size:
            raise ValueError(
                f"images are {tuple(images.shape[-2:])} pixels, the model is for {self.image_size}"
            )
        tokens = self.proj(images).flatten(2).transpose(1, 2)  # x_p E
        cls = self.cls_token.expand(images.shape[0], -1, -1)  # x_class
        return torch.cat([cls, tokens], dim=1) + self.pos_embed
