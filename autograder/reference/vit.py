"""The Vision Transformer as the paper specifies it (Dosovitskiy et al. 2020, section 3.1 and appendix B.1).

    model = vit("B/16", num_classes=21_843, representation_size=768)   # the form that is pre-trained
    model = for_fine_tuning(model, num_classes=10, image_size=384)     # the form that is fine-tuned
    model = vit("B/16", num_classes=1000)                              # the latter from scratch

The state dict has timm's names. Where the paper is silent, the initial values are those of the authors' code.
Shapes: B images, C channels, T tokens ([CLS] and N patches), width D, K classes.
"""

from collections import OrderedDict
from copy import deepcopy
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from autograder.reference.initial_values import initialise
from autograder.reference.resize_positions import Grid, resize_positions
from autograder.reference.variants import VARIANTS
from autograder.reference.vit_blocks import EncoderBlock, PatchEmbedding


def patch_grid(image_size: int | tuple[int, int], patch_size: int) -> Grid:
    """Return the number of patches (down, across) of an image of `image_size` pixels, int or (height, width).

    Raises ValueError when a size is not positive or the patches do not fill the image exactly.
    """
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    if min(height, width, patch_size) < 1:
        raise ValueError(f"image_size={image_size} and patch_size={patch_size} must be positive")
    if height % patch_size or width % patch_size:
        raise ValueError(f"image_size={image_size} is not a multiple of patch_size={patch_size}; resize")
    return height // patch_size, width // patch_size


def require_positive(**sizes: int) -> None:
    """Raise ValueError, naming the argument and its value, for the first size below one."""
    for argument, value in sizes.items():
        if value < 1:
            raise ValueError(f"{argument}={value} must be at least 1")


class VisionTransformer(nn.Module):
    """The whole model: images of `image_size` to logits, or to features when `num_classes` is 0.

    `pool` "cls" classifies the [CLS] token, "gap" the mean of the patch tokens (appendix D.3). `dropout` acts
    in training mode, after every dense layer of the encoder but qkv and after adding the position embedding.
    `representation_size` adds the pre-logits layer with tanh, which the paper uses in pre-training only.

    The other options are where implementations differ (see `variants.CONVENTIONS`). `norm_eps`: epsilon of
    every layer norm. `gelu`: "exact" or "tanh". `qkv_bias`: whether q, k and v have one. `norm_after_pool`:
    the last norm follows the mean and is called fc_norm (timm's 'avg'). `class_token=False`: patches only
    (the authors' code for GAP).

    Raises ValueError for sizes that are not positive or do not divide, and options that are unknown or clash.
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
        *,
        representation_size: int | None = None,
        norm_eps: float = 1e-6,
        gelu: str = "exact",
        qkv_bias: bool = True,
        norm_after_pool: bool = False,
        class_token: bool = True,
    ) -> None:
        super().__init__()
        features = dim if representation_size is None else representation_size
        require_positive(in_channels=in_channels, dim=dim, depth=depth, mlp_dim=mlp_dim)
        require_positive(representation_size=features)
        if num_classes < 0:
            raise ValueError(f"num_classes={num_classes} must be 0 (features, no head) or more")
        if pool not in ("cls", "gap"):
            raise ValueError(f"pool={pool!r} is unknown; choose 'cls' or 'gap'")
        if pool == "cls" and not class_token:
            raise ValueError("pool='cls' needs the [CLS] token, but class_token=False; choose pool='gap'")

        self.grid = patch_grid(image_size, patch_size)
        self.patch_size, self.in_channels, self.pool = patch_size, in_channels, pool
        self.patch_embed = PatchEmbedding(patch_size, in_channels, dim)
        self.cls_token = nn.Parameter(torch.empty(1, 1, dim)) if class_token else None
        self.pos_embed = nn.Parameter(torch.empty(1, int(class_token) + self.grid[0] * self.grid[1], dim))
        self.pos_drop = nn.Dropout(dropout)
        options: dict[str, Any] = {"norm_eps": norm_eps, "gelu": gelu, "qkv_bias": qkv_bias}
        self.blocks = nn.Sequential(
            *(EncoderBlock(dim, num_heads, mlp_dim, dropout, **options) for _ in range(depth))
        )
        self.norm = nn.Identity() if norm_after_pool else nn.LayerNorm(dim, eps=norm_eps)
        self.fc_norm = nn.LayerNorm(dim, eps=norm_eps) if norm_after_pool else nn.Identity()
        representation = OrderedDict(fc=nn.Linear(dim, features), act=nn.Tanh())
        self.pre_logits = nn.Identity() if representation_size is None else nn.Sequential(representation)
        self.head = nn.Linear(features, num_classes) if num_classes else nn.Identity()
        initialise(self)

    def forward(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K"]:
        """Classify the images. Raises ValueError for images of another size or number of channels."""
        z = self.encode(images)
        pooled = z[:, 0] if self.pool == "cls" else z[:, self.num_prefix_tokens :].mean(dim=1)
        y = self.fc_norm(pooled)  # equation 4: y = LN(z_L⁰), where LN stands in `norm` or here
        return self.head(self.pre_logits(y))

    def encode(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B T D"]:
        """Return all tokens, LN(z_L); with `norm_after_pool`, z_L itself."""
        height, width = (patches * self.patch_size for patches in self.grid)
        if images.ndim != 4 or images.shape[1:] != (self.in_channels, height, width):
            raise ValueError(
                f"images have shape {tuple(images.shape)}, but the model is for (batch, {self.in_channels}, "
                f"{height}, {width}); resize the images or build the model with another image_size"
            )
        z = self.patch_embed(images)
        if self.cls_token is not None:
            z = torch.cat([self.cls_token.expand(len(z), -1, -1), z], dim=1)
        z = self.pos_drop(z + self.pos_embed)  # equation 1: z_0 = [x_class; x_p¹E; …; x_pᴺE] + E_pos
        z = self.blocks(z)  # equations 2 and 3 in each block: z_L
        return self.norm(z)

    @property
    def num_prefix_tokens(self) -> int:
        """The number of tokens before those of the patches: 1 with [CLS], else 0."""
        return 0 if self.cls_token is None else 1


def vit(
    name: str,
    *,
    image_size: int | tuple[int, int] = 224,
    in_channels: int = 3,
    num_classes: int = 1000,
    **options: Any,
) -> VisionTransformer:
    """Build a model of `variants.VARIANTS`, for example vit("B/16", num_classes=10, pool="gap").

    `options` are those of `VisionTransformer`. Raises ValueError for an unknown name.
    """
    if name not in VARIANTS:
        raise ValueError(f"name={name!r} is unknown; choose one of {', '.join(VARIANTS)}")
    v = VARIANTS[name]
    sizes = (image_size, v.patch_size, in_channels, num_classes, v.dim, v.depth, v.num_heads, v.mlp_dim)
    return VisionTransformer(*sizes, **options)


def for_fine_tuning(
    model: VisionTransformer,
    num_classes: int,
    image_size: int | tuple[int, int] | None = None,
    resize: str = "bicubic",
) -> VisionTransformer:
    """Return a copy of a pre-trained model that is ready for another task (section 3.2).

    The whole head, pre-logits layer included, gives way to one linear layer of zeros. With `image_size` the
    position embeddings are interpolated by `resize`, a name of `resize_positions.METHODS`.
    Raises ValueError for fewer than one class, an unknown method, or a size that patches do not fill.
    """
    require_positive(num_classes=num_classes)
    tuned = deepcopy(model)
    positions = model.pos_embed.detach()
    tuned.pre_logits = nn.Identity()
    tuned.head = nn.Linear(positions.shape[-1], num_classes, dtype=positions.dtype, device=positions.device)
    nn.init.zeros_(tuned.head.weight)
    nn.init.zeros_(tuned.head.bias)
    if image_size is not None:
        tuned.grid = patch_grid(image_size, model.patch_size)
        tuned.pos_embed = nn.Parameter(resize_positions(positions, model.grid, tuned.grid, resize).clone())
    return tuned
