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
# # From images to patches
#
# A Transformer reads a sequence of vectors. An image is a grid of pixels. This assignment builds the bridge:
# cut the image into squares, called *patches*, and write each square as one vector.
#
# | symbol | meaning | example |
# |---|---|---|
# | $x \in \mathbb{R}^{C \times H \times W}$ | an image: channel, row, column | 3 × 224 × 224 |
# | $P$ | side of a patch in pixels | 16 |
# | $N = HW / P^2$ | number of patches | 14 · 14 = 196 |
# | $P^2 C$ | values in one patch | 16 · 16 · 3 = 768 |
#
# After this assignment you can cut a batch of images into patches, put them together again without losing a
# bit, and say why "cut and project" is the same as one convolution. Chapter 1 of the book explains every
# step.

# %% [markdown]
# ## How to work
#
# 1. Write your code where a cell says `Your code here`, and delete the line `raise NotImplementedError`.
# 2. Run the cell, then run the check below it. The check lists what your answer does right, in order, and
#    explains the first thing that is not right yet.
# 3. Stuck? Open one hint, close it, try again. The hints get more concrete from one to the next.
#
# Keep `checks.py` and `cases.safetensors` in the same folder as this notebook. Grading runs the same checks
# on other inputs. You may use all of PyTorch. Plain loops are right too; reshaping is shorter and much
# faster.
#
# **What every answer owes its caller:** the result has the dtype and the device of the input, the input is
# not changed, gradients reach it, and bad arguments end in a `ValueError` that names the argument and its
# value.

# %%
import matplotlib.pyplot as plt
import torch
from checks import check

# %% [markdown]
# A picture to play with: a sun above hills, made by a few lines of code. Its shape is (1, 3, 48, 64): one
# image, three channels, 48 rows, 64 columns. It is not square, and that is on purpose.

# %%
row, column = torch.meshgrid(torch.linspace(0, 1, 48), torch.linspace(0, 1, 64), indexing="ij")
sky = torch.stack([0.5 + 0.4 * row, 0.6 + 0.2 * row, 0.9 - 0.2 * row])
sun = (row - 0.3) ** 2 + (1.33 * (column - 0.7)) ** 2 < 0.03
hills = row > 0.7 + 0.12 * torch.sin(9 * column)
picture = torch.where(sun, torch.tensor([1.0, 0.9, 0.2]).view(3, 1, 1), sky)
picture = torch.where(hills, torch.stack([0.2 * row, 0.8 - 0.5 * row, 0.2 * column]), picture)[None]

plt.imshow(picture[0].permute(1, 2, 0))
plt.title(f"{tuple(picture.shape)}")
plt.show()

# %% [markdown]
# ## 1 · How many patches?
#
# Patches do not overlap and leave no gap. Along the height there are $H / P$ of them, along the width $W /
# P$:
#
# $$N = \frac{H}{P} \cdot \frac{W}{P} = \frac{HW}{P^2}$$
#
# For 224 × 224 pixels and $P = 16$ that makes $14 \cdot 14 = 196$. A side that $P$ does not divide cannot
# be cut into whole patches. Refuse it with a `ValueError` such as `height 10 is not divisible by patch_size
# 4`. Do the same for a size that is zero or negative.
#
# <details><summary>Hint 1: what to check</summary>
#
# Check height and width each by itself. The product is not enough: 2 × 8 pixels are as many as one 4 × 4
# patch, but a side of 2 cannot hold it.
# </details>
#
# <details><summary>Hint 2: the order of the checks</summary>
#
# First that all three sizes are positive, so that nothing divides by zero. Then that both sides are divisible
# (`size % patch_size` is the remainder). Then count with `//`, which keeps whole numbers whole.
# </details>


# %% exercise="num_patches"
def num_patches(height, width, patch_size):
    """Return N, the number of patches of an image of height x width pixels, as an int.

    Raises ValueError when a size is not positive, or height or width is not divisible by patch_size.
    """
    ### BEGIN SOLUTION
    sizes = {"height": height, "width": width, "patch_size": patch_size}
    for name, size in sizes.items():
        if size <= 0:
            raise ValueError(f"{name} must be positive, got {size}")
    for name in ("height", "width"):
        if sizes[name] % patch_size != 0:
            raise ValueError(f"{name} {sizes[name]} is not divisible by patch_size {patch_size}")
    return (height // patch_size) * (width // patch_size)
    ### END SOLUTION


# %% check="num_patches"
check(num_patches)

# %% [markdown]
# **Try it.** The cost of attention grows with $N^2$. Halve the patch size: how does $N$ grow, and how does
# $N^2$?

# %%
for patch_size in (32, 16, 8, 4):
    n = num_patches(224, 224, patch_size)
    print(f"P = {patch_size:2}   N = {n:4}   N² = {n**2:9,}")

# %% [markdown]
# ## 2 · Cut
#
# `patchify` turns images (B, C, H, W) into patches (B, N, P·P·C).
#
# * The **patches** come row by row: first along the width, then down. That is how you read this text.
# * **Inside a patch** the order is row, column, channel. The channel changes fastest, so the red, green and
#   blue value of one pixel stand side by side.
#
# Value by value, for pixel row $i$, pixel column $j$ and channel $c$ of the patch in row $r$ and column $s$
# of the grid:
#
# $$\text{patches}\big[b,\; r \tfrac{W}{P} + s,\; (iP + j)\,C + c\big]
# = \text{images}\big[b,\; c,\; rP + i,\; sP + j\big]$$
#
# <details><summary>Hint 1: the plan</summary>
#
# Split the height axis into two axes (which patch, which row inside it), and the width axis too. Bring the
# six axes into the order of the result. Join those that belong together.
# </details>
#
# <details><summary>Hint 2: the six axes</summary>
#
# `reshape` can split an axis of length H into (H/P, P): the outer one is the patch, the inner one the row
# in the patch. Write the six axes with names: (B, C, H/P, P, W/P, P) before, (B, H/P, W/P, P, P, C) after.
# </details>
#
# <details><summary>Hint 3: which call moves axes</summary>
#
# `permute` moves axes. `reshape` and `view` never move a value, they only cut the same run of numbers
# differently. `permute` lists, for each new axis, its old number.
# </details>


# %% exercise="patchify"
def patchify(images, patch_size):
    """Cut images into patches, row by row; inside a patch: row, column, channel.

    images: (B, C, H, W). Returns (B, N, P*P*C).
    Raises ValueError when height or width is not divisible by patch_size.
    """
    ### BEGIN SOLUTION
    batch, channels, height, width = images.shape
    n = num_patches(height, width, patch_size)
    rows, columns = height // patch_size, width // patch_size
    split = images.reshape(batch, channels, rows, patch_size, columns, patch_size)
    ordered = split.permute(0, 2, 4, 3, 5, 1)  # (B, H/P, W/P, P, P, C)
    return ordered.reshape(batch, n, patch_size * patch_size * channels)
    ### END SOLUTION


# %% check="patchify"
check(patchify)

# %% [markdown]
# **Try it.** Move the slider. Each small square is one vector of the sequence that the Transformer will
# read, in the order of the numbers.

# %%
from ipywidgets import interact


def draw_patches(patch_size):
    patches = patchify(picture, patch_size)[0]
    rows, columns = 48 // patch_size, 64 // patch_size
    figure, axes = plt.subplots(rows, columns, figsize=(6, 4.5), squeeze=False)
    for number, (axis, patch) in enumerate(zip(axes.flat, patches, strict=True)):
        axis.imshow(patch.reshape(patch_size, patch_size, 3))
        axis.axis("off")
        if len(patches) <= 48:
            axis.set_title(str(number), fontsize=7, pad=1)
    figure.suptitle(f"P = {patch_size}: {len(patches)} patches of {patches.shape[1]} values")
    plt.show()


patchify(picture, 8)  # stops here until patchify is written
interact(draw_patches, patch_size=[16, 8])

# %% [markdown]
# ## 3 · Put together
#
# Nothing was lost in cutting: `unpatchify` is the exact inverse. It turns patches (B, N, P·P·C) into images
# (B, C, H, W). The patches do not tell the shape of the image (12 patches may be 3 × 4 or 2 × 6), so height
# and width are arguments.
#
# <details><summary>Hint 1: the plan</summary>
#
# Walk the three steps of `patchify` backwards: split what was joined, bring the axes back, join what was
# split. The number of channels follows from the length of a patch and P.
# </details>
#
# <details><summary>Hint 2: the axes</summary>
#
# Before: (B, H/P, W/P, P, P, C). After: (B, C, H/P, P, W/P, P). Only then join H/P with P, and W/P with P.
# </details>
#
# <details><summary>Hint 3: what to refuse</summary>
#
# Let `num_patches` check height and width. Then compare its answer with the number of patches that came in.
# </details>


# %% exercise="unpatchify"
def unpatchify(patches, patch_size, height, width):
    """Put patches together again: the exact inverse of patchify.

    patches: (B, N, P*P*C). Returns (B, C, H, W).
    Raises ValueError when height or width is not divisible by patch_size, or N does not fill the image.
    """
    ### BEGIN SOLUTION
    batch, n, values = patches.shape
    if n != num_patches(height, width, patch_size):
        raise ValueError(
            f"patches: {n} of them do not fill {height} x {width} pixels, patch_size {patch_size}"
        )
    if values % patch_size**2 != 0:
        raise ValueError(f"patches: {values} values in each, not a multiple of patch_size² = {patch_size**2}")
    channels = values // patch_size**2
    rows, columns = height // patch_size, width // patch_size
    split = patches.reshape(batch, rows, columns, patch_size, patch_size, channels)
    ordered = split.permute(0, 5, 1, 3, 2, 4)  # (B, C, H/P, P, W/P, P)
    return ordered.reshape(batch, channels, height, width)
    ### END SOLUTION


# %% check="unpatchify"
check(unpatchify)

# %% [markdown]
# **Try it.** Shuffle the patches and put them together. Without position embeddings (chapter 3) a
# Transformer could not tell these two pictures apart: it sees the same set of vectors.

# %%
patches = patchify(picture, 8)
shuffled = patches[:, torch.randperm(patches.shape[1])]
figure, axes = plt.subplots(1, 2, figsize=(8, 3))
for axis, title, each in zip(axes, ("in order", "shuffled"), (patches, shuffled), strict=True):
    axis.imshow(unpatchify(each, 8, 48, 64)[0].permute(1, 2, 0))
    axis.set_title(title)
    axis.axis("off")
plt.show()

# %% [markdown]
# ## 4 · The same as a convolution
#
# The next step of a ViT multiplies every patch by one matrix $E \in \mathbb{R}^{P^2 C \times D}$. Real code
# often has no `patchify` at all: it calls a convolution whose kernel is P × P and whose stride is P. The
# kernel visits the patches one after the other and takes the same sums of products. Only the weights are
# stored in another order:
#
# * `weight` has shape (P·P·C, D). Its rows follow the order inside a patch: row, column, channel.
# * A Conv2d kernel has shape (D, C, P, P): output channel, input channel, row, column.
#
# Write the function that turns the first into the second, so that
# `conv2d(images, kernel, stride=P)` holds the values of `patchify(images, P) @ weight`.
#
# <details><summary>Hint 1: the plan</summary>
#
# No value is computed here. Split the first axis in three, then move axes.
# </details>
#
# <details><summary>Hint 2: the axes</summary>
#
# The rows of `weight` are (P, P, C) in this order, so `reshape` may split them just so. Then (P, P, C, D)
# becomes (D, C, P, P) by a permutation.
# </details>


# %% exercise="projection_to_conv"
def projection_to_conv(weight, patch_size, channels):
    """Return the Conv2d kernel that, with stride P, equals patchify(x, P) @ weight.

    weight: (P*P*C, D). Returns (D, C, P, P).
    Raises ValueError when patch_size is not positive or weight does not have P*P*C rows.
    """
    ### BEGIN SOLUTION
    if patch_size <= 0:
        raise ValueError(f"patch_size must be positive, got {patch_size}")
    rows, dim = weight.shape
    if rows != patch_size * patch_size * channels:
        raise ValueError(f"weight has {rows} rows, not {patch_size}*{patch_size}*{channels} (P*P*C)")
    return weight.reshape(patch_size, patch_size, channels, dim).permute(3, 2, 0, 1)
    ### END SOLUTION


# %% check="projection_to_conv"
check(projection_to_conv)

# %% [markdown]
# **Try it.** Both ways on the picture, with $P = 8$ and $D = 5$. The convolution gives (1, D, H/P, W/P):
# flatten the grid and move D to the end, and the same (1, N, D) appears. The difference is rounding.

# %%
weight = torch.randn(8 * 8 * 3, 5)
by_matrix = patchify(picture, 8) @ weight
by_conv = torch.nn.functional.conv2d(picture, projection_to_conv(weight, 8, 3), stride=8)
print("matrix", tuple(by_matrix.shape), "  convolution", tuple(by_conv.shape))
print("largest difference", (by_matrix - by_conv.flatten(2).transpose(1, 2)).abs().max().item())

# %% [markdown]
# ## What you know now
#
# * An image of H × W pixels is a sequence of $N = HW/P^2$ patches with $P^2C$ values each.
# * The order inside a patch is a convention. Weights that were trained with one order make no sense with
#   another.
# * Cutting and projecting is one strided convolution.
#
# Next: the assignment `patch_embedding` turns these patches into the input $z_0$ of the Transformer.
