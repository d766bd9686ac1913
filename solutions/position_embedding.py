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
# # Where is a patch?
#
# Attention treats its tokens as a set: shuffle the patches of an image and it sees the same thing. So every
# token gets a vector added that says where its patch is, the *position embedding*. This assignment builds
# the kinds that Vision Transformers use, moves one to another image size, and looks at what it contains.
#
# | symbol | meaning | ViT-B/16 at 224 pixels |
# |---|---|---|
# | $h \times w$ | the grid of patches: height, width | 14 × 14 |
# | $N = hw$ | number of patches, row by row | 196 |
# | $D$ | width of a token | 768 |
# | $E_\text{pos}$ | position embedding, with one row for [CLS] in front | 197 × 768 |
#
# Grids are always (height, width). Chapter 3 of the book explains every step.

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
# not changed, gradients reach it, nothing is remembered between calls, and what does not fit is refused with
# an error.

# %%
import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from checks import check

# %% [markdown]
# ## 1 · Sines and cosines
#
# The first Transformer (Vaswani et al., 2017) needs no learning to number its tokens. Position $p$ becomes
# $D/2$ angles, and each angle gives two entries that stand side by side:
#
# $$\text{PE}(p, 2i) = \sin\!\big(p \,/\, \text{base}^{2i/D}\big) \qquad
# \text{PE}(p, 2i+1) = \cos\!\big(p \,/\, \text{base}^{2i/D}\big)$$
#
# Think of the hands of $D/2$ clocks. The first turns by one radian a position, the next ones more and more
# slowly. With the base 10,000 and $D = 64$ the last one needs 47,000 positions for one turn.
#
# For $D = 4$ and the base 10,000 the two angles of position 3 are 3 and $3 / 10000^{2/4} = 0.03$, so row 3
# is 0.1411, −0.9900, 0.0300, 0.9996.
#
# There is no input tensor whose dtype could be kept: the table has torch's default dtype
# (`torch.get_default_dtype()`, float32 unless someone changed it). An odd `dim` leaves a sine without its
# cosine: raise a `ValueError` that names `dim` and its value.
#
# <details><summary>Hint 1: the plan</summary>
#
# First a table of angles, (positions, D/2): a column of positions divided by a row of powers. Broadcasting
# does the rest.
# </details>
#
# <details><summary>Hint 2: the exponents</summary>
#
# `torch.arange(0, dim, 2)` gives 0, 2, 4, ..., the values of 2i. Divide by `dim`.
# </details>
#
# <details><summary>Hint 3: side by side</summary>
#
# Stack sine and cosine along a new last axis, (positions, D/2, 2), and flatten the last two. Or fill a table
# of zeros: `table[:, 0::2]` are its even entries.
# </details>


# %% exercise="sinusoidal_1d"
def sinusoidal_1d(num_positions, dim, base=10000.0):
    """Return the table of sines and cosines, (num_positions, dim), in torch's default dtype.

    Raises ValueError when dim is odd.
    """
    ### BEGIN SOLUTION
    if dim % 2 != 0:
        raise ValueError(f"dim must be even, got {dim}")
    position = torch.arange(num_positions, dtype=torch.get_default_dtype())
    exponent = torch.arange(0, dim, 2, dtype=torch.get_default_dtype()) / dim
    angle = position[:, None] / base**exponent  # (positions, D/2)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)
    ### END SOLUTION


# %% check="sinusoidal_1d"
check(sinusoidal_1d)

# %% [markdown]
# **Try it.** Each row is the fingerprint of one position. The left columns turn fast, the right ones hardly
# at all. Make `base` smaller: what happens?

# %%
plt.figure(figsize=(7, 3))
plt.imshow(sinusoidal_1d(60, 64).T, cmap="RdBu", aspect="auto")
plt.xlabel("position")
plt.ylabel("entry")
plt.show()

# %% [markdown]
# ## 2 · Two dimensions
#
# An image has rows and columns. `sinusoidal_2d` gives half of the entries to each: for the patch in row $r$
# and column $c$,
#
# $$\big[\; \underbrace{\text{PE}_{D/2}(r)}_{D/2 \text{ entries}} \;;\;
# \underbrace{\text{PE}_{D/2}(c)}_{D/2 \text{ entries}} \;\big]$$
#
# where $\text{PE}_{D/2}$ is a table of width $D/2$ from `sinusoidal_1d`. Patches come row by row, as in
# `patchify`: (0, 0), (0, 1), (0, 2), ..., (1, 0), ... Each half is made of pairs, so $D$ is a multiple of 4.
# Refuse another `dim` with a `ValueError`.
#
# <details><summary>Hint 1: what repeats how</summary>
#
# For a grid of 2 × 3 the rows go 0 0 0 1 1 1 and the columns 0 1 2 0 1 2.
# </details>
#
# <details><summary>Hint 2: two ways to get there</summary>
#
# `repeat_interleave(w, dim=0)` repeats each line w times, `repeat(h, 1)` repeats the whole table h times. Or
# make both (h, w, D/2) with `[:, None]`, `[None, :]` and `expand`, and flatten the grid at the end.
# </details>


# %% exercise="sinusoidal_2d"
def sinusoidal_2d(grid_height, grid_width, dim, base=10000.0):
    """Return the table for a grid of patches, row by row: (grid_height * grid_width, dim).

    The first half of each line encodes the row, the second half the column.
    Raises ValueError when dim is not divisible by 4.
    """
    ### BEGIN SOLUTION
    if dim % 4 != 0:
        raise ValueError(f"dim must be divisible by 4, got {dim}")
    row = sinusoidal_1d(grid_height, dim // 2, base).repeat_interleave(grid_width, dim=0)
    column = sinusoidal_1d(grid_width, dim // 2, base).repeat(grid_height, 1)
    return torch.cat([row, column], dim=1)
    ### END SOLUTION


# %% check="sinusoidal_2d"
check(sinusoidal_2d)

# %% [markdown]
# ## 3 · Learned, in two dimensions
#
# The same idea with learned vectors: one for each row and one for each column, each $D/2$ wide. A grid of
# 14 × 14 then needs 14 + 14 vectors instead of 196. The two halves must be equally wide: raise an error when
# they are not. (`torch.cat` would not.)
#
# <details><summary>Hint</summary>
#
# It is `sinusoidal_2d` with the two tables given. The grid is `len(row_embed)` × `len(col_embed)`.
# </details>


# %% exercise="learned_2d"
def learned_2d(row_embed, col_embed):
    """Join the embeddings of row and column for every patch, row by row.

    row_embed: (grid_height, D/2), col_embed: (grid_width, D/2). Returns (grid_height * grid_width, D).
    """
    ### BEGIN SOLUTION
    if row_embed.shape[1] != col_embed.shape[1]:
        raise ValueError(f"row_embed has width {row_embed.shape[1]}, col_embed has {col_embed.shape[1]}")
    row = row_embed.repeat_interleave(len(col_embed), dim=0)
    column = col_embed.repeat(len(row_embed), 1)
    return torch.cat([row, column], dim=1)
    ### END SOLUTION


# %% check="learned_2d"
check(learned_2d)

# %% [markdown]
# ## 4 · A larger image
#
# ViT itself learns one vector for each of the $N$ places, and one for [CLS]. A model trained at 224 pixels
# has 14 × 14 of them. At 384 pixels there are 24 × 24 patches. The paper's answer (section 3.2): take the
# vectors as an image with $D$ channels and resize it.
#
# `pos_embed` has shape (1, 1 + h·w, D), with [CLS] first. [CLS] has no place in the image, so its vector
# stays as it is. Resize the others with bicubic interpolation, `align_corners=False`, no antialiasing. When
# `pos_embed` does not hold 1 + h·w vectors for `old_grid`, raise a `ValueError` that names what does not
# match.
#
# <details><summary>Hint 1: the plan</summary>
#
# Split off [CLS]. Turn (1, h·w, D) into an image (1, D, h, w), resize it with `F.interpolate`, turn it back
# into (1, h'·w', D), and put [CLS] in front again.
# </details>
#
# <details><summary>Hint 2: axes</summary>
#
# The D values of one patch stand together in memory. Move the axis D forward with `permute` or `transpose`:
# a `reshape` to (1, D, h, w) alone would mix patches and channels.
# </details>
#
# <details><summary>Hint 3: the call</summary>
#
# `F.interpolate(image, size=new_grid, mode="bicubic", align_corners=False)`. Both `size` and the grids are
# (height, width).
# </details>


# %% exercise="interpolate_position_embedding"
def interpolate_position_embedding(pos_embed, old_grid, new_grid):
    """Resize the position embeddings of the patches to another grid; that of [CLS] stays as it is.

    pos_embed: (1, 1 + h*w, D), old_grid: (h, w), new_grid: (h', w'). Returns (1, 1 + h'*w', D).
    Raises ValueError when pos_embed does not match old_grid.
    """
    ### BEGIN SOLUTION
    height, width = old_grid
    if pos_embed.shape[1] != 1 + height * width:
        raise ValueError(
            f"pos_embed holds {pos_embed.shape[1]} positions, old_grid {old_grid} needs {1 + height * width}"
        )
    cls, patches = pos_embed[:, :1], pos_embed[:, 1:]
    image = patches.transpose(1, 2).unflatten(2, (height, width))  # (1, D, h, w)
    image = F.interpolate(image, size=new_grid, mode="bicubic", align_corners=False)
    return torch.cat([cls, image.flatten(2).transpose(1, 2)], dim=1)
    ### END SOLUTION


# %% check="interpolate_position_embedding"
check(interpolate_position_embedding)

# %% [markdown]
# **Try it.** One channel of a smooth position embedding on a grid of 4 × 6, before and after.

# %%
small = torch.cat([torch.zeros(1, 8), sinusoidal_2d(4, 6, 8, base=100.0)])[None]
large = interpolate_position_embedding(small, (4, 6), (12, 18))
figure, axes = plt.subplots(1, 2, figsize=(8, 2.8))
axes[0].imshow(small[0, 1:, 4].reshape(4, 6))
axes[0].set_title("4 × 6")
axes[1].imshow(large[0, 1:, 4].reshape(12, 18))
axes[1].set_title("12 × 18")
plt.show()

# %% [markdown]
# ## 5 · Which places look alike?
#
# How close are two position embeddings? The cosine of the angle between two vectors is 1 when they point
# the same way, 0 when they are at right angles, −1 when they are opposite:
#
# $$\cos(e_p, e_q) = \frac{e_p \cdot e_q}{|e_p|\,|e_q|}$$
#
# Compute it for every two patches. The result has shape (h, w, h, w): entry $[r, c]$ is a picture of how
# similar every place is to patch $(r, c)$. Leave [CLS] out. Refuse a grid that does not match as in
# exercise 4.
#
# <details><summary>Hint 1: the plan</summary>
#
# Divide every vector by its own length. Then one matrix product holds all the cosines, (N, N).
# </details>
#
# <details><summary>Hint 2: the shape</summary>
#
# Patches are numbered row by row, so both axes of length N split into (h, w).
# </details>


# %% exercise="position_similarity"
def position_similarity(pos_embed, grid):
    """Return the cosine similarity of the position embeddings of every two patches.

    pos_embed: (1, 1 + h*w, D) with [CLS] first, grid: (h, w). Returns (h, w, h, w).
    Raises ValueError when pos_embed does not match grid.
    """
    ### BEGIN SOLUTION
    height, width = grid
    if pos_embed.shape[1] != 1 + height * width:
        raise ValueError(
            f"pos_embed holds {pos_embed.shape[1]} positions, grid {grid} needs {1 + height * width}"
        )
    patches = pos_embed[0, 1:]
    unit = patches / patches.norm(dim=-1, keepdim=True)
    return (unit @ unit.T).reshape(height, width, height, width)
    ### END SOLUTION


# %% check="position_similarity"
check(position_similarity)

# %% [markdown]
# **Try it.** Sines of the patch number against sines of row and column. Only one of the two knows that the
# patch below is a neighbour.

# %%
tables = {"number of the patch": sinusoidal_1d(49, 64), "row and column": sinusoidal_2d(7, 7, 64)}
figure, axes = plt.subplots(1, 2, figsize=(7, 3))
for axis, (title, table) in zip(axes, tables.items(), strict=True):
    similarity = position_similarity(torch.cat([torch.ones(1, 64), table])[None], (7, 7))
    axis.imshow(similarity[3, 3], cmap="viridis")
    axis.set_title(title)
    axis.axis("off")
plt.show()

# %% [markdown]
# ## What you know now
#
# * Without a position embedding the order of the patches is lost.
# * Sines and cosines give every position a fingerprint without learning. In two dimensions each coordinate
#   gets half of the entries.
# * ViT learns one vector a place. For another image size these vectors are resized like an image, and [CLS]
#   is left alone.
#
# Next: the assignment `attention` lets the tokens look at each other.
