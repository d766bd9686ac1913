# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The Vision Transformer
#
# All parts are there: patches, tokens, positions, blocks. This assignment puts them together and counts what
# the result holds and costs. The whole model is four equations (Dosovitskiy et al., 2020):
#
# $$z_0 = [\,x_\text{class};\; x_p^1 E;\; \dots;\; x_p^N E\,] + E_\text{pos}$$
# $$z'_l = \text{MSA}(\text{LN}(z_{l-1})) + z_{l-1}, \qquad l = 1 \dots L$$
# $$z_l = \text{MLP}(\text{LN}(z'_l)) + z'_l, \qquad l = 1 \dots L$$
# $$y = \text{LN}(z_L^0)$$
#
# | symbol | meaning | ViT-B/16 | ViT-L/16 | ViT-H/14 |
# |---|---|---|---|---|
# | $P$ | patch size | 16 | 16 | 14 |
# | $D$ | width of a token, `dim` | 768 | 1024 | 1280 |
# | $L$ | blocks, `depth` | 12 | 24 | 32 |
# | $h$ | heads, `num_heads` | 12 | 16 | 16 |
# | $M$ | hidden width of the MLP, `mlp_dim` | 3072 | 4096 | 5120 |
#
# Chapter 6 of the book explains every step.

# %% [markdown]
# ## How to work
#
# 1. Write your code where a cell says `Your code here`, and delete the line `raise NotImplementedError`.
# 2. Run the cell, then run the check below it. The check lists what your answer does right, in order, and
#    explains the first thing that is not right yet.
# 3. Stuck? Open one hint, close it, try again. The hints get more concrete from one to the next.
#
# Keep `checks.py` and `cases.safetensors` in the same folder as this notebook. Grading runs the same checks
# on other inputs. You may use all of PyTorch but
# `nn.TransformerEncoder` and `nn.TransformerEncoderLayer`.
#
# **What every answer owes its caller:** the result has the dtype and the device of the input, the input is
# not changed, gradients reach every input and parameter, and what does not fit is refused with an error.

# %%
from collections import OrderedDict

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from checks import check
from torch import nn

# %% [markdown]
# The encoder block is the assignment before this one. Here it is given.


# %%
class MultiHeadSelfAttention(nn.Module):
    """MSA with parameters qkv.* and proj.*: (B, N, D) to (B, N, D)."""

    def __init__(self, dim, num_heads):
        super().__init__()
        if dim % num_heads != 0:
            raise ValueError(f"dim {dim} is not divisible by num_heads {num_heads}")
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, z):
        q, k, v = (
            self.qkv(z).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        )  # each (B, h, N, d)
        heads = F.scaled_dot_product_attention(q, k, v)
        return self.proj(heads.transpose(1, 2).flatten(2))


class EncoderBlock(nn.Module):
    """One block: z'_l = MSA(LN(z_{l-1})) + z_{l-1}, then z_l = MLP(LN(z'_l)) + z'_l."""

    def __init__(self, dim, num_heads, mlp_dim, dropout=0.0):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = MultiHeadSelfAttention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        layers = {"fc1": nn.Linear(dim, mlp_dim), "gelu": nn.GELU()}
        layers |= {"dropout": nn.Dropout(dropout), "fc2": nn.Linear(mlp_dim, dim)}
        self.mlp = nn.Sequential(OrderedDict(layers))
        self.dropout = nn.Dropout(p=dropout)

    def forward(self, z):
        z = z + self.dropout(self.attn(self.norm1(z)))
        return z + self.dropout(self.mlp(self.norm2(z)))


# %% [markdown]
# ## 1 · From tokens to one vector
#
# After the last block there are N + 1 tokens and one image to classify. Two ways are common:
#
# * `"cls"`: take the [CLS] token. That is the paper's choice.
# * `"gap"`: take the mean of the patch tokens, *without* [CLS]. GAP stands for global average pooling.
#
# Any other name is refused with a `ValueError` that names `pool` and its value.
#
# <details><summary>Hint</summary>
#
# [CLS] has index 0 on axis 1. The patches are `tokens[:, 1:]`.
# </details>


# %% exercise="pool_tokens"
def pool_tokens(tokens, pool):
    """Return one vector for each image.

    tokens: (B, N+1, D), pool: "cls" or "gap". Returns (B, D).
    """
    ### BEGIN SOLUTION
    if pool == "cls":
        return tokens[:, 0]
    if pool == "gap":
        return tokens[:, 1:].mean(dim=1)
    raise ValueError(f"pool must be 'cls' or 'gap', got {pool!r}")
    ### END SOLUTION


# %% check="pool_tokens"
check(pool_tokens)

# %% [markdown]
# ## 2 · The model
#
# `VisionTransformer(image_size, patch_size, in_channels, num_classes, dim, depth, num_heads, mlp_dim,
# pool="cls", dropout=0.0)` goes from images (B, C, H, W) to logits (B, K). Its parameters have the names of
# timm, a library of image models, so that you can load published weights later:
#
# | name | shape | starts as |
# |---|---|---|
# | `patch_embed.proj.weight`, `.bias` | (D, C, P, P), (D,) | torch's default |
# | `cls_token` | (1, 1, D) | zero |
# | `pos_embed` | (1, N+1, D) | normal, mean 0, standard deviation 0.02 |
# | `blocks.0.…` to `blocks.{L-1}.…` | see `EncoderBlock` | torch's default |
# | `norm.weight`, `norm.bias` | (D,) | torch's default; eps is 1e-6 |
# | `head.weight`, `head.bias` | (K, D), (K,) | zero |
#
# * The final norm comes after the last block and *before* pooling, in both modes.
# * Dropout follows the addition of the position embedding too, besides its places in the blocks.
# * `image_size` is one number or a pair (height, width). Sizes that are not positive or that `patch_size`
#   does not divide, and an unknown `pool`, are refused with a `ValueError`; images of another size are
#   refused in `forward`.
#
# <details><summary>Hint 1: names with a dot</summary>
#
# `patch_embed.proj` is a module `proj` inside a module `patch_embed`.
# `nn.Sequential(OrderedDict(proj=...))` is the shortest way to get one. `blocks` is an `nn.Sequential` or
# an `nn.ModuleList` of `EncoderBlock`.
# </details>
#
# <details><summary>Hint 2: forward, line by line</summary>
#
# Compare the images' size. Project, flatten, transpose. Put [CLS] in front, add the positions, drop. Run
# the blocks. Norm, pool, head.
# </details>
#
# <details><summary>Hint 3: the zeros of the head</summary>
#
# `nn.init.zeros_` on its weight and on its bias. The first logits are then all zero, and the
# first loss is the logarithm of the number of classes: a useful thing to check when training starts.
# </details>


# %% exercise="VisionTransformer"
class VisionTransformer(nn.Module):
    """Images (B, C, H, W) to logits (B, K).

    Raises ValueError for an image_size that is not positive or not divisible by patch_size, and for a
    pool other than "cls" and "gap"; in forward for images of another size.
    """

    def __init__(
        self,
        image_size,
        patch_size,
        in_channels,
        num_classes,
        dim,
        depth,
        num_heads,
        mlp_dim,
        pool="cls",
        dropout=0.0,
    ):
        super().__init__()
        ### BEGIN SOLUTION
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        for name, size in (("patch_size", patch_size), ("image_size", height), ("image_size", width)):
            if size <= 0:
                raise ValueError(f"{name} must be positive, got {size}")
        if height % patch_size != 0 or width % patch_size != 0:
            raise ValueError(f"image_size {image_size} is not divisible by patch_size {patch_size}")
        if pool not in ("cls", "gap"):
            raise ValueError(f"pool must be 'cls' or 'gap', got {pool!r}")
        self.image_size, self.pool = (height, width), pool
        n = (height // patch_size) * (width // patch_size)
        projection = nn.Conv2d(in_channels, dim, kernel_size=patch_size, stride=patch_size)
        self.patch_embed = nn.Sequential(OrderedDict(proj=projection))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, n + 1, dim))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(*(EncoderBlock(dim, num_heads, mlp_dim, dropout) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, num_classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        ### END SOLUTION

    def forward(self, images):
        ### BEGIN SOLUTION
        if tuple(images.shape[-2:]) != self.image_size:
            raise ValueError(f"images are {tuple(images.shape[-2:])} pixels, expected {self.image_size}")
        tokens = self.patch_embed(images).flatten(2).transpose(1, 2)  # x_p E
        cls = self.cls_token.expand(images.shape[0], -1, -1)
        z = self.dropout(torch.cat([cls, tokens], dim=1) + self.pos_embed)  # z_0
        z = self.blocks(z)  # z_L
        return self.head(pool_tokens(self.norm(z), self.pool))
        ### END SOLUTION


# %% check="VisionTransformer"
check(VisionTransformer)

# %% [markdown]
# **Try it.** A tiny model, three random images. All logits are zero at first. What is the loss?

# %%
tiny = VisionTransformer((32, 48), 8, 3, num_classes=10, dim=64, depth=2, num_heads=4, mlp_dim=128)
logits = tiny(torch.randn(3, 3, 32, 48))
print("logits:", tuple(logits.shape), "largest", logits.abs().max().item())
print("loss:", F.cross_entropy(logits, torch.tensor([0, 1, 2])).item(), "= log 10")

# %% [markdown]
# ## 3 · How many parameters?
#
# Add them up in closed form, for `pool="cls"`: a formula of the sizes, without building the model. It
# answers at once even for models that no computer holds. The number of heads does not matter. Why?
#
# Weights *and* biases count: of the patch projection, of qkv, proj, fc1 and fc2 in each of the L blocks, of
# two norms a block and one at the end, and of the head. [CLS] and the positions count too.
#
# ViT-B/16 at 224 pixels with 1000 classes has 86,567,656.
#
# <details><summary>Hint 1: a linear layer</summary>
#
# From `inputs` to `outputs` values: inputs · outputs + outputs.
# </details>
#
# <details><summary>Hint 2: one block</summary>
#
# Two norms of 2D, qkv from D to 3D, proj from D to D, fc1 from D to M, fc2 from M to D.
# </details>


# %% exercise="parameter_count"
def parameter_count(image_size, patch_size, in_channels, num_classes, dim, depth, mlp_dim):
    """Return the number of parameters of a VisionTransformer, an int.

    Raises ValueError for an image_size that is not positive or not divisible by patch_size.
    """
    ### BEGIN SOLUTION
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    if min(height, width, patch_size) <= 0 or height % patch_size != 0 or width % patch_size != 0:
        raise ValueError(f"image_size {image_size} does not fit patch_size {patch_size}")
    tokens = (height // patch_size) * (width // patch_size) + 1

    def linear(inputs, outputs):
        return inputs * outputs + outputs

    embedding = linear(patch_size**2 * in_channels, dim) + dim + tokens * dim  # projection, [CLS], positions
    block = 2 * dim + linear(dim, 3 * dim) + linear(dim, dim)  # norm1, qkv, proj
    block += 2 * dim + linear(dim, mlp_dim) + linear(mlp_dim, dim)  # norm2, fc1, fc2
    return embedding + depth * block + 2 * dim + linear(dim, num_classes)
    ### END SOLUTION


# %% check="parameter_count"
check(parameter_count)

# %% [markdown]
# ## 4 · How much work?
#
# Count the multiply–accumulates of the matrix products for one image. A product of (a × b) and (b × c) takes
# a · b · c of them. Nothing else counts: no biases, norms, softmax or GELU.
#
# | product | rows |
# |---|---|
# | patch projection | N |
# | qkv, proj, fc1, fc2, in each block | N + 1 |
# | $QK^\top$ and $AV$, in each block, all heads together | N + 1 |
# | head | 1 |
#
# ViT-B/16 at 224 pixels with 1000 classes needs 17,563,828,224, the "17.6 G" of papers.
#
# <details><summary>Hint: attention's two products</summary>
#
# In one head $QK^\top$ is (N+1) × d times d × (N+1). There are h heads, and h · d = D. $AV$ costs the same.
# </details>


# %% exercise="macs_per_image"
def macs_per_image(image_size, patch_size, in_channels, num_classes, dim, depth, mlp_dim):
    """Return the multiply-accumulates of all matrix products for one image, an int.

    Raises ValueError for an image_size that is not positive or not divisible by patch_size.
    """
    ### BEGIN SOLUTION
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    if min(height, width, patch_size) <= 0 or height % patch_size != 0 or width % patch_size != 0:
        raise ValueError(f"image_size {image_size} does not fit patch_size {patch_size}")
    n = (height // patch_size) * (width // patch_size)
    tokens = n + 1
    projection = n * patch_size**2 * in_channels * dim
    attention = tokens * dim * 3 * dim + 2 * tokens * tokens * dim + tokens * dim * dim
    mlp = 2 * tokens * dim * mlp_dim
    return projection + depth * (attention + mlp) + dim * num_classes
    ### END SOLUTION


# %% check="macs_per_image"
check(macs_per_image)

# %% [markdown]
# **Try it.** What happens to ViT-B/16 when images get larger? The weights stay, apart from the positions.
# The work grows with the number of tokens, and the part of $QK^\top$ and $AV$ with its square.

# %%
sides = [224, 384, 512, 768, 1024]
sizes = {"patch_size": 16, "in_channels": 3, "num_classes": 1000, "dim": 768, "depth": 12, "mlp_dim": 3072}
for side in sides:
    macs, count = macs_per_image(side, **sizes), parameter_count(side, **sizes)
    print(f"{side:5} px: {count / 1e6:6.1f} M parameters, {macs / 1e9:6.1f} G multiply-accumulates")

figure, axes = plt.subplots(figsize=(5, 2.6))
axes.plot(sides, [macs_per_image(side, **sizes) / 1e9 for side in sides], "o-")
axes.set(xlabel="side of the image in pixels", ylabel="G multiply-accumulates")
plt.show()

# %% [markdown]
# ## What you know now
#
# * The whole model fits on one page: embed, add positions, L blocks, norm, pool, head.
# * Nearly all parameters are in the blocks, about $12 D^2$ in each when $M = 4D$.
# * Work grows with the number of tokens, so halving the patch size costs more than four times as much.
#
# Next: the assignment `training` trains such a model from scratch.
