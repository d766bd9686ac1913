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
# # Patch embedding, [CLS] and $z_0$
#
# The patches of an image are vectors of raw pixels. This assignment turns them into $z_0$, the sequence
# that the first layer of the Transformer reads. It is equation 1 of the paper (Dosovitskiy et al., 2020):
#
# $$z_0 = [\,x_\text{class};\; x_p^1 E;\; x_p^2 E;\; \dots;\; x_p^N E\,] + E_\text{pos}$$
#
# | symbol | meaning | shape | ViT-B/16 at 224 pixels |
# |---|---|---|---|
# | $x_p^i$ | patch number $i$, as a row | $P^2C$ | 768 |
# | $E$ | the patch projection, learned | $P^2C \times D$ | 768 × 768 |
# | $x_\text{class}$ | the [CLS] token, learned | $1 \times D$ | 1 × 768 |
# | $E_\text{pos}$ | the position embedding, learned | $(N+1) \times D$ | 197 × 768 |
# | $z_0$ | the result | $(N+1) \times D$ | 197 × 768 |
#
# You write the three steps as functions and then the whole as one `nn.Module`, with the parameter names that
# real libraries use. Chapter 2 of the book explains every step.

# %% [markdown]
# ## How to work
#
# 1. Write your code where a cell says `Your code here`, and delete the line `raise NotImplementedError`.
# 2. Run the cell, then run the check below it. The check lists what your answer does right, in order, and
#    explains the first thing that is not right yet.
# 3. Stuck? Open one hint, close it, try again. The hints get more concrete from one to the next.
#
# Keep `checks.py` and `cases.safetensors` in the same folder as this notebook. Grading runs the same checks
# on other inputs. You may use all of PyTorch.
#
# **What every answer owes its caller:** the result has the dtype and the device of the input, the input is
# not changed, gradients reach every input and parameter, and what does not fit is refused with an error.

# %%
import matplotlib.pyplot as plt
import torch
from checks import check
from torch import nn

# %% [markdown]
# ## 1 · Project every patch
#
# A Transformer works with vectors of one width $D$ from the first layer to the last. The patch projection
# maps the $P^2C$ values of a patch to $D$ values. Every patch of every image goes through the same matrix
# $E$ and bias $b$:
#
# $$x_p^i \;\mapsto\; x_p^i E + b$$
#
# The bias may be left out: then `bias` is `None`.
#
# <details><summary>Hint 1: shapes</summary>
#
# (B, N, P·P·C) times (P·P·C, D) gives (B, N, D): `@` multiplies the last axis and leaves the others alone.
# </details>
#
# <details><summary>Hint 2: which way round</summary>
#
# Here `weight` is (inputs, outputs), as in the equation. `F.linear` and `nn.Linear` expect it the other way
# round.
# </details>


# %% exercise="embed_patches"
def embed_patches(patches, weight, bias=None):
    """Send every patch through the same linear map.

    patches: (B, N, P*P*C), weight: (P*P*C, D), bias: (D,) or None. Returns (B, N, D).
    """
    ### BEGIN SOLUTION
    tokens = patches @ weight
    return tokens if bias is None else tokens + bias
    ### END SOLUTION


# %% check="embed_patches"
check(embed_patches)

# %% [markdown]
# **Try it.** Equal patches become equal tokens, wherever they are. The first and the last patch below hold
# the same values.

# %%
patches = torch.randn(1, 6, 12)
patches[0, 5] = patches[0, 0]
weight = torch.randn(12, 4)
tokens = embed_patches(patches, weight)
print("patch 0 and patch 5 give equal tokens:", torch.equal(tokens[0, 0], tokens[0, 5]))

# %% [markdown]
# ## 2 · Put [CLS] in front
#
# At the end the model needs one vector for the whole image. It adds one more token at the front, which
# belongs to no patch: $x_\text{class}$. Layer by layer, attention lets it collect what matters from the
# patches. At the start it is the same learned vector for every image.
#
# `cls_token` has shape (1, 1, D). Each of the B images gets it once: (B, N, D) becomes (B, N+1, D).
#
# <details><summary>Hint 1: one token, many images</summary>
#
# `torch.cat` does not broadcast: all its parts need the same batch size. `expand` repeats an axis of length 1
# without copying, and gradients of all images add up in the one token.
# </details>
#
# <details><summary>Hint 2: which axis</summary>
#
# Tokens are counted by axis 1, and [CLS] comes first in the list of parts.
# </details>


# %% exercise="prepend_cls_token"
def prepend_cls_token(tokens, cls_token):
    """Put the [CLS] token before the tokens of every image.

    tokens: (B, N, D), cls_token: (1, 1, D). Returns (B, N+1, D).
    """
    ### BEGIN SOLUTION
    batch = tokens.shape[0]
    return torch.cat([cls_token.expand(batch, -1, -1), tokens], dim=1)
    ### END SOLUTION


# %% check="prepend_cls_token"
check(prepend_cls_token)

# %% [markdown]
# ## 3 · Add the positions
#
# Attention treats its input as a set: nothing in a token says where its patch was. So every place in the
# sequence has a learned vector of its own, and it is added:
#
# $$z_0 = [\,x_\text{class};\; x_p^1 E;\; \dots;\; x_p^N E\,] + E_\text{pos}$$
#
# $E_\text{pos}$ has N+1 rows, since [CLS] has a place too. The positions are the same for every image of
# the batch. The numbers of tokens must be equal, otherwise raise an error. Watch out for a position
# embedding of length 1: torch would add it to every token without a word.
#
# <details><summary>Hint 1: broadcasting</summary>
#
# (B, N+1, D) + (1, N+1, D) is what you want, and torch does it. It also accepts (1, 1, D), which you do not
# want.
# </details>
#
# <details><summary>Hint 2: the check</summary>
#
# Compare `tokens.shape[1:]` with `position_embedding.shape[1:]` before you add.
# </details>


# %% exercise="add_position_embedding"
def add_position_embedding(tokens, position_embedding):
    """Add the position embedding to the tokens of every image.

    tokens: (B, N+1, D), position_embedding: (1, N+1, D). Returns (B, N+1, D).
    Raises ValueError when the two have different numbers of tokens, also when one of them has length 1.
    """
    ### BEGIN SOLUTION
    if tokens.shape[1:] != position_embedding.shape[1:]:
        raise ValueError(
            f"position_embedding is for {tuple(position_embedding.shape[1:])} tokens x values, "
            f"tokens has {tuple(tokens.shape[1:])}"
        )
    return tokens + position_embedding
    ### END SOLUTION


# %% check="add_position_embedding"
check(add_position_embedding)

# %% [markdown]
# **Try it.** The two equal patches of above can be told apart now.

# %%
with_cls = prepend_cls_token(embed_patches(patches, weight), torch.zeros(1, 1, 4))
z0 = add_position_embedding(with_cls, 0.02 * torch.randn(1, 7, 4))
print("patch 0 and patch 5 still equal:", torch.equal(z0[0, 1], z0[0, 6]))
print("distance:", (z0[0, 1] - z0[0, 6]).norm().item())

# %% [markdown]
# ## 4 · All of it as a module
#
# `PatchEmbedding(image_size, patch_size, in_channels, dim)` goes from images (B, C, H, W) to $z_0$ (B, N+1,
# D). `image_size` is one number for square images or a pair (height, width). Its parameters, all trainable:
#
# | name | shape | starts as |
# |---|---|---|
# | `proj.weight`, `proj.bias` | (D, C, P, P), (D,) | torch's default of `nn.Conv2d` |
# | `cls_token` | (1, 1, D) | zero |
# | `pos_embed` | (1, N+1, D) | normal, mean 0, standard deviation 0.02 |
#
# The projection is the strided convolution of the assignment `patches`. Patches come row by row.
#
# What does not fit is refused. In the constructor: a size that is not positive or that `patch_size` does
# not divide (`ValueError` with name and value). In `forward`: images of another height, width or number of
# channels than the module was made for.
#
# <details><summary>Hint 1: what the constructor makes</summary>
#
# `self.proj = nn.Conv2d(...)` with kernel size and stride P, and two `nn.Parameter`. A plain tensor as an
# attribute is neither trained nor saved nor moved to the GPU.
# </details>
#
# <details><summary>Hint 2: from the convolution to tokens</summary>
#
# `proj` gives (B, D, H/P, W/P). `flatten(2)` makes (B, D, N), row by row. Then swap the last two axes.
# </details>
#
# <details><summary>Hint 3: images of another size</summary>
#
# The convolution itself accepts any size and drops pixels that are left over. Keep (height, width) as an
# attribute and compare it with `images.shape[-2:]`. A wrong number of channels is refused by the
# convolution.
# </details>


# %% exercise="PatchEmbedding"
class PatchEmbedding(nn.Module):
    """Images (B, C, H, W) to z_0 (B, N+1, D).

    Raises ValueError for an image_size that is not positive or not divisible by patch_size, and in forward
    for images of another size.
    """

    def __init__(self, image_size, patch_size, in_channels, dim):
        super().__init__()
        ### BEGIN SOLUTION
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        for name, size in (("patch_size", patch_size), ("image_size", height), ("image_size", width)):
            if size <= 0:
                raise ValueError(f"{name} must be positive, got {size}")
        if height % patch_size != 0 or width % patch_size != 0:
            raise ValueError(f"image_size {image_size} is not divisible by patch_size {patch_size}")
        self.image_size = (height, width)
        n = (height // patch_size) * (width // patch_size)
        self.proj = nn.Conv2d(in_channels, dim, kernel_size=patch_size, stride=patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, n + 1, dim))
        ### END SOLUTION

    def forward(self, images):
        ### BEGIN SOLUTION
        if tuple(images.shape[-2:]) != self.image_size:
            raise ValueError(f"images are {tuple(images.shape[-2:])} pixels, expected {self.image_size}")
        tokens = self.proj(images).flatten(2).transpose(1, 2)  # x_p E, (B, N, D)
        tokens = prepend_cls_token(tokens, self.cls_token)
        return add_position_embedding(tokens, self.pos_embed)
        ### END SOLUTION


# %% check="PatchEmbedding"
check(PatchEmbedding)

# %% [markdown]
# **Try it.** The patch embedding of ViT-B/16. Its filters start as noise: here are the first sixteen of the
# 768, each 16 × 16 pixels. Chapter 2 shows what training makes of them.

# %%
embedding = PatchEmbedding(image_size=224, patch_size=16, in_channels=3, dim=768)
for name, parameter in embedding.named_parameters():
    print(f"{name:12} {tuple(parameter.shape)!s:18} {parameter.numel():8,}")
print(f"{'all':31} {sum(parameter.numel() for parameter in embedding.parameters()):8,}")

figure, axes = plt.subplots(2, 8, figsize=(8, 2.2))
for axis, kernel in zip(axes.flat, embedding.proj.weight.detach(), strict=False):
    axis.imshow((kernel - kernel.min()).permute(1, 2, 0) / (kernel.max() - kernel.min()))
    axis.axis("off")
plt.show()

# %% [markdown]
# ## What you know now
#
# * One matrix $E$ maps every patch to a token; as a module it is a convolution with stride P.
# * [CLS] is one learned vector, shared by all images, and it makes the sequence N + 1 long.
# * Positions are learned vectors that are added. Without them the order of the patches would be lost.
#
# Next: the assignment `position_embedding` looks at what these positions learn and how else one may make
# them.
