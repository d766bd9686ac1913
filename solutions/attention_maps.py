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
# # Attention maps
#
# What does a Vision Transformer look at? Attention gives a first answer: every layer says how much each
# token takes from each other token. This assignment reads these weights out of a model, follows them
# through all layers, and measures how far heads look.
#
# | symbol | meaning | shape |
# |---|---|---|
# | $A^{(l)}_j$ | weights of head $j$ in block $l$; each row sums to 1 | $(N+1) \times (N+1)$ |
# | row $i$ | what token $i$ takes from every token; token 0 is [CLS] | $N+1$ |
#
# Chapter 11 of the book explains every step, and says what such maps do not show.

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
# Here is a small model to look at, with the names of the earlier assignments. Its attention is fused: it
# never makes the weights, so there is nothing to return.


# %%
class Attention(nn.Module):
    """Self-attention, fused."""

    def __init__(self, dim, num_heads):
        super().__init__()
        self.num_heads, self.qkv, self.proj = num_heads, nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, z):
        q, k, v = self.qkv(z).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """An encoder block."""

    def __init__(self, dim, num_heads):
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(dim, eps=1e-6), Attention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, z):
        z = z + self.attn(self.norm1(z))
        return z + self.mlp(self.norm2(z))


class SmallViT(nn.Module):
    """Images of 32 x 32 pixels, patches of 4: N = 64."""

    def __init__(self, dim=48, depth=4, num_heads=3):
        super().__init__()
        self.patch_embed = nn.Conv2d(3, dim, 4, 4)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(0.5 * torch.randn(1, 65, dim))
        self.blocks = nn.Sequential(*(Block(dim, num_heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(dim, eps=1e-6), nn.Linear(dim, 10)

    def forward(self, images):
        tokens = self.patch_embed(images).flatten(2).transpose(1, 2)
        z = torch.cat([self.cls_token.expand(len(images), -1, -1), tokens], dim=1) + self.pos_embed
        return self.head(self.norm(self.blocks(z))[:, 0])


# %% [markdown]
# ## 1 · Read the weights out of a model
#
# `record_attention(model, images)` returns a list of L tensors (B, h, N+1, N+1), first block first. It must
# work for any model with the names of this course, whether or not its attention makes the weights. All you
# need is there: `block.norm1` gives what attention reads, `block.attn.qkv` makes queries and keys from it,
# and `block.attn.num_heads` says how many heads share them. Then
#
# $$A = \text{softmax}\left(\frac{QK^\top}{\sqrt d}\right), \qquad d = D / h$$
#
# The model belongs to someone else. Leave it as you found it:
#
# * Run it in evaluation mode. Afterwards *every module* is in the mode in which it was: a frozen block may
#   be in evaluation mode while the rest trains.
# * Remove your hooks, also when the model raises an error, and let that error through. Leave the hooks of
#   others.
# * Its output does not change.
#
# <details><summary>Hint 1: hooks</summary>
#
# `handle = module.register_forward_hook(hook)` calls `hook(module, inputs, output)` after each call of the
# module. `handle.remove()` takes it away. A hook that returns something replaces the output, so return
# nothing.
# </details>
#
# <details><summary>Hint 2: also after an error</summary>
#
# `try: ... finally: ...` runs the second part in any case.
# </details>
#
# <details><summary>Hint 3: modes</summary>
#
# `{module: module.training for module in model.modules()}` remembers them. Setting `module.training`
# restores one module; `module.train(mode)` sets everything inside it too.
# </details>


# %% exercise="record_attention"
def record_attention(model, images):
    """Return the attention weights of every block.

    images: (B, C, H, W). Returns a list of L tensors (B, h, N+1, N+1), first block first.
    """
    ### BEGIN SOLUTION
    recorded = []

    def hook_for(attention):
        def record(module, inputs, normed):
            parts = attention.qkv(normed).unflatten(-1, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
            q, k, _ = parts  # each (B, h, N+1, d)
            recorded.append((q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(dim=-1))

        return record

    modes = {module: module.training for module in model.modules()}
    hooks = [block.norm1.register_forward_hook(hook_for(block.attn)) for block in model.blocks]
    try:
        model.eval()(images)
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes.items():
            module.training = training
    return recorded
    ### END SOLUTION


# %% check="record_attention"
check(record_attention)

# %%
torch.manual_seed(0)
model, images = SmallViT(), torch.rand(2, 3, 32, 32)
with torch.no_grad():
    attentions = record_attention(model, images)
print(len(attentions), "blocks, each", tuple(attentions[0].shape))
print("a row sums to", attentions[0][0, 0, 0].sum().item())

# %% [markdown]
# ## 2 · Through all layers: rollout
#
# One layer tells what its tokens take from the layer before, but these are mixed already. Attention rollout
# (Abnar and Zuidema, 2020) follows the mixing down to the patches:
#
# $$\hat A^{(l)} = \text{rows to sum one}\left(\tfrac1h \sum_j A^{(l)}_j + I\right), \qquad
# R = \hat A^{(L)} \cdots \hat A^{(2)} \hat A^{(1)}$$
#
# The identity stands for the residual connection, which carries each token on as it is. Rows are scaled in
# every layer, by their own sums: in the paper's weights all sums are 2, but they differ as soon as someone
# sets small weights to zero.
#
# <details><summary>Hint 1: scaling rows</summary>
#
# `x / x.sum(dim=-1, keepdim=True)`. Without `keepdim` torch would line the sums up with the columns.
# </details>
#
# <details><summary>Hint 2: the order</summary>
#
# Start with the first layer and multiply each next one from the left.
# </details>


# %% exercise="attention_rollout"
def attention_rollout(attentions):
    """Return how much of each patch is in each token after the last layer.

    attentions: a list of L tensors (B, h, N+1, N+1), first layer first. Returns (B, N+1, N+1).
    """
    ### BEGIN SOLUTION
    first = attentions[0]
    identity = torch.eye(first.shape[-1], dtype=first.dtype, device=first.device)
    rollout = identity
    for attention in attentions:
        mixing = attention.mean(dim=1) + identity
        mixing = mixing / mixing.sum(dim=-1, keepdim=True)
        rollout = mixing @ rollout
    return rollout
    ### END SOLUTION


# %% check="attention_rollout"
check(attention_rollout)

# %% [markdown]
# ## 3 · A map for [CLS]
#
# The logits depend on [CLS], so its row is the one to look at. `cls_attention_map(rollout, grid)` leaves
# out what [CLS] takes from itself, lays the rest out as a grid of patches, row by row, and scales each
# image to a maximum of 1. A row of zeros stays zero. A `grid` (height, width) that does not hold as many
# patches is refused with a `ValueError`.
#
# <details><summary>Hint 1: which entries</summary>
#
# `rollout[:, 0, 1:]` has shape (B, N).
# </details>
#
# <details><summary>Hint 2: zeros</summary>
#
# 0 / 0 is NaN. Divide by 1 where the maximum is 0, with `torch.where`.
# </details>


# %% exercise="cls_attention_map"
def cls_attention_map(rollout, grid):
    """Return what [CLS] takes from each patch, as pictures.

    rollout: (B, N+1, N+1), grid: (height, width) in patches. Returns (B, height, width), each with maximum 1.
    """
    ### BEGIN SOLUTION
    height, width = grid
    row = rollout[:, 0, 1:]
    if row.shape[-1] != height * width:
        raise ValueError(f"grid {grid} holds {height * width} patches, rollout has {row.shape[-1]}")
    largest = row.amax(dim=-1, keepdim=True)
    row = row / torch.where(largest > 0, largest, 1)
    return row.reshape(-1, height, width)
    ### END SOLUTION


# %% check="cls_attention_map"
check(cls_attention_map)

# %% [markdown]
# **Try it.** The model is not trained, so its map says nothing about the image. Chapter 11 does the same
# with a model that is.

# %%
figure, axes = plt.subplots(1, 2, figsize=(5, 2.5))
axes[0].imshow(images[0].permute(1, 2, 0))
axes[1].imshow(
    cls_attention_map(attention_rollout(record_attention(model, images)), (8, 8))[0].detach(), vmin=0, vmax=1
)
for axis, title in zip(axes, ("image", "rollout of [CLS]"), strict=True):
    axis.set_title(title)
    axis.axis("off")
plt.show()

# %% [markdown]
# ## 4 · How far does a head look?
#
# For every query patch: the mean distance to the patches that it takes from, weighted by attention. Then
# the mean over all query patches and images, one number for each head. Small numbers mean that a head works
# like a small convolution, large ones that it looks across the whole image.
#
# * Distances are those of patch centres, in *pixels*, along the straight line.
# * [CLS] has no place in the image: leave it out as query and as key, and scale the rows to a sum of one
#   again.
# * A `grid` that does not match and a `patch_size` that is not positive are refused with a `ValueError`.
#
# <details><summary>Hint 1: where a patch is</summary>
#
# Patch number i is in row i // width and column i % width. Two patches that are a rows and b columns apart
# have centres √(a² + b²) · patch_size pixels apart.
# </details>
#
# <details><summary>Hint 2: the weighted mean</summary>
#
# With a table of distances (N, N): multiply, sum over the keys (last axis), then take the mean over images
# and queries.
# </details>


# %% exercise="mean_attention_distance"
def mean_attention_distance(weights, grid, patch_size):
    """Return how far each head looks, in pixels.

    weights: (B, h, N+1, N+1), grid: (height, width) in patches. Returns (h,).
    """
    ### BEGIN SOLUTION
    height, width = grid
    if patch_size <= 0:
        raise ValueError(f"patch_size must be positive, got {patch_size}")
    patches = weights[:, :, 1:, 1:]
    if patches.shape[-1] != height * width:
        raise ValueError(f"grid {grid} holds {height * width} patches, weights has {patches.shape[-1]}")
    patches = patches / patches.sum(dim=-1, keepdim=True)
    number = torch.arange(height * width, device=weights.device)
    row, column = number // width, number % width
    squares = (row[:, None] - row) ** 2 + (column[:, None] - column) ** 2
    distances = patch_size * squares.to(weights.dtype).sqrt()
    return (patches * distances).sum(dim=-1).mean(dim=(0, 2))
    ### END SOLUTION


# %% check="mean_attention_distance"
check(mean_attention_distance)

# %%
for number, attention in enumerate(record_attention(model, images), 1):
    print(
        f"block {number}:",
        [f"{pixels:.1f} px" for pixels in mean_attention_distance(attention, (8, 8), 4).tolist()],
    )

# %% [markdown]
# ## What you know now
#
# * Attention weights can be computed from outside, whatever the model does inside.
# * Rollout multiplies the layers, with the identity for the residual connection.
# * A number for each head tells how far it looks. In trained models some heads of the first layers look far
#   already.
#
# A map of attention is a hint, not a proof: it leaves out values, MLPs and norms. Chapter 11 says more.
