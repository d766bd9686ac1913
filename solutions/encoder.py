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
# # The encoder block
#
# A Vision Transformer is one block, repeated: 12 times in ViT-B/16, 32 times in ViT-H/14. This assignment
# builds the block from its parts. It is equations 2 and 3 of the paper (Dosovitskiy et al., 2020):
#
# $$z'_l = \text{MSA}(\text{LN}(z_{l-1})) + z_{l-1}$$
# $$z_l = \text{MLP}(\text{LN}(z'_l)) + z'_l$$
#
# | symbol | meaning | shape | ViT-B/16 at 224 pixels |
# |---|---|---|---|
# | $z_{l-1}$, $z_l$ | tokens before and after block $l$ | $(N+1) \times D$ | 197 × 768 |
# | LN | layer normalisation | two vectors of $D$ values | 768 |
# | MSA | multi-head self-attention, the assignment before | $h$ heads | 12 heads |
# | MLP | two layers with GELU between them | $D \to M \to D$ | 768 → 3072 → 768 |
#
# Chapter 5 of the book explains every step.

# %% [markdown]
# ## How to work
#
# 1. Write your code where a cell says `Your code here`, and delete the line `raise NotImplementedError`.
# 2. Run the cell, then run the check below it. The check lists what your answer does right, in order, and
#    explains the first thing that is not right yet.
# 3. Stuck? Open one hint, close it, try again. The hints get more concrete from one to the next.
#
# Keep `checks.py` and `cases.safetensors` in the same folder as this notebook. Grading runs the same checks
# on other inputs. Each exercise says what it may not call;
# everything else in PyTorch is allowed.
#
# **What every answer owes its caller:** the result has the dtype and the device of the input, the input is
# not changed, gradients reach every input and parameter, and what does not fit is refused with an error.

# %%
import math
from collections import OrderedDict

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from checks import check
from torch import nn

# %% [markdown]
# ## 1 · Layer normalisation
#
# In a deep model the sizes of tokens drift. Layer normalisation gives every token mean 0 and variance 1, and
# then lets the model choose another scale and shift for each of the $D$ values:
#
# $$\text{LN}(x) = \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} \cdot \text{weight} + \text{bias}$$
#
# $\mu$ and $\sigma^2$ are mean and variance of *one token*: they run over the last dimension only, whatever
# dimensions come before. $\sigma^2$ is the mean of $(x - \mu)^2$, so it divides by $D$. $\epsilon$ keeps the
# root above zero. ViT takes $10^{-6}$.
#
# You may not call `F.layer_norm`, `nn.LayerNorm` or `torch.native_layer_norm` here.
#
# <details><summary>Hint 1: one mean for each token</summary>
#
# `x.mean(dim=-1, keepdim=True)` has shape (..., 1), so that it can be subtracted from x.
# </details>
#
# <details><summary>Hint 2: which variance</summary>
#
# `x.var` divides by D - 1 unless it gets `unbiased=False`.
# </details>


# %% exercise="layer_norm"
def layer_norm(x, weight, bias, eps=1e-6):
    """Normalise over the last dimension.

    x: (..., D), weight: (D,), bias: (D,). Returns the shape of x.
    """
    ### BEGIN SOLUTION
    mean = x.mean(dim=-1, keepdim=True)
    variance = x.var(dim=-1, keepdim=True, unbiased=False)
    return (x - mean) / torch.sqrt(variance + eps) * weight + bias
    ### END SOLUTION


# %% check="layer_norm"
check(layer_norm)

# %% [markdown]
# **Try it.** Does `eps` matter? For tokens of size 1 it changes nothing that you could see. For tokens of
# size
# 0.001 the variance is $10^{-6}$, as large as `eps` itself.

# %%
for size in (1, 0.1, 0.01, 0.001):
    token = size * torch.randn(1, 768)
    normed = layer_norm(token, torch.ones(768), torch.zeros(768))
    print(f"token of size {size:5}: standard deviation after LN {normed.std().item():.3f}")

# %% [markdown]
# ## 2 · GELU
#
# The activation between the two layers of the MLP. It weighs $x$ by the probability that a normal random
# number is below $x$:
#
# $$\text{GELU}(x) = x \cdot \Phi(x), \qquad
# \Phi(x) = \tfrac12 \left(1 + \text{erf}\left(x / \sqrt2\right)\right)$$
#
# Large values pass, large negative values become 0, and between them the curve is smooth. The exact form is
# asked for, not the approximation with tanh.
#
# You may not call `F.gelu` or `nn.GELU` here.
#
# <details><summary>Hint</summary>
#
# `torch.erf` works on tensors of any shape.
# </details>


# %% exercise="gelu"
def gelu(x):
    """Return x times the normal distribution function of x; any shape."""
    ### BEGIN SOLUTION
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2
    ### END SOLUTION


# %% check="gelu"
check(gelu)

# %%
x = torch.linspace(-4, 4, 200)
figure, axes = plt.subplots(figsize=(5, 2.6))
axes.plot(x, gelu(x), label="GELU")
axes.plot(x, x.relu(), "--", label="ReLU")
axes.set(xlabel="x", ylabel="activation")
axes.legend()
plt.show()

# %% [markdown]
# ## 3 · The MLP
#
# Attention moves information between tokens. The MLP works on each token by itself: a wide hidden layer,
# GELU, and back to the width of the tokens.
#
# $$\text{MLP}(x) = \text{fc2}(\text{GELU}(\text{fc1}(x)))$$
#
# Weights are (outputs, inputs), as `F.linear` and `nn.Linear` have them.
#
# <details><summary>Hint</summary>
#
# Two calls of `F.linear` with `gelu` between them. Your `gelu` from above will do, and so will `F.gelu`.
# </details>


# %% exercise="mlp"
def mlp(x, fc1_weight, fc1_bias, fc2_weight, fc2_bias):
    """Send every token through two layers with GELU between them.

    x: (..., D), fc1_weight: (M, D), fc1_bias: (M,), fc2_weight: (D, M), fc2_bias: (D,). Returns (..., D).
    """
    ### BEGIN SOLUTION
    hidden = gelu(F.linear(x, fc1_weight, fc1_bias))
    return F.linear(hidden, fc2_weight, fc2_bias)
    ### END SOLUTION


# %% check="mlp"
check(mlp)

# %% [markdown]
# ## 4 · The block as a function
#
# Multi-head self-attention is the assignment before this one. Here it is given, as a function and as a
# module.


# %%
def multi_head_self_attention(x, qkv_weight, qkv_bias, proj_weight, proj_bias, num_heads):
    """MSA, equations 5 to 8. x: (B, N, D). Raises ValueError when num_heads does not divide D."""
    batch, tokens, dim = x.shape
    if dim % num_heads != 0:
        raise ValueError(f"dim {dim} is not divisible by num_heads {num_heads}")
    qkv = F.linear(x, qkv_weight, qkv_bias).reshape(batch, tokens, 3, num_heads, dim // num_heads)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, h, N, d)
    weights = (q @ k.transpose(-2, -1) / math.sqrt(dim // num_heads)).softmax(dim=-1)
    heads = (weights @ v).transpose(1, 2).reshape(batch, tokens, dim)
    return F.linear(heads, proj_weight, proj_bias)


class MultiHeadSelfAttention(nn.Module):
    """The same as a module, with parameters qkv.* and proj.*."""

    def __init__(self, dim, num_heads):
        super().__init__()
        if dim % num_heads != 0:
            raise ValueError(f"dim {dim} is not divisible by num_heads {num_heads}")
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x):
        qkv, proj = self.qkv, self.proj
        return multi_head_self_attention(x, qkv.weight, qkv.bias, proj.weight, proj.bias, self.num_heads)


# %% [markdown]
# Now equations 2 and 3. Note where the norm stands: *before* each half, and only there. What is added in
# the end is $z$ itself, not its normed form. This order is called pre-norm.
#
# `params` is a dictionary with the names of a real ViT: `norm1.weight`, `norm1.bias`, `attn.qkv.weight`,
# `attn.qkv.bias`, `attn.proj.weight`, `attn.proj.bias`, `norm2.weight`, `norm2.bias`, `mlp.fc1.weight`,
# `mlp.fc1.bias`, `mlp.fc2.weight`, `mlp.fc2.bias`. Both norms have an eps of $10^{-6}$.
#
# You may not use `nn.TransformerEncoder` or `nn.TransformerEncoderLayer`, here and in the next exercise.
#
# <details><summary>Hint 1: two lines</summary>
#
# `x = x + attention of (norm1 of x)`, then `x + mlp of (norm2 of x)`.
# </details>
#
# <details><summary>Hint 2: an in-place trap</summary>
#
# `x += ...` would change the tensor of the caller. `x = x + ...` makes a new one.
# </details>


# %% exercise="encoder_block"
def encoder_block(x, params, num_heads):
    """Return the tokens after one block.

    x: (B, N, D), params: names to tensors. Returns (B, N, D).
    Raises ValueError when num_heads does not divide D.
    """
    ### BEGIN SOLUTION
    layers = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
    norm1, qkv, proj, norm2, fc1, fc2 = (
        (params[f"{name}.weight"], params[f"{name}.bias"]) for name in layers
    )
    x = x + multi_head_self_attention(layer_norm(x, *norm1), *qkv, *proj, num_heads)  # equation 2
    return x + mlp(layer_norm(x, *norm2), *fc1, *fc2)  # equation 3
    ### END SOLUTION


# %% check="encoder_block"
check(encoder_block)

# %% [markdown]
# ## 5 · The block as a module
#
# `EncoderBlock(dim, num_heads, mlp_dim, dropout=0.0)` has the same parameters, as submodules: its state
# dict has exactly the twelve names from above. `nn.LayerNorm` and `nn.GELU` are welcome here. Note that
# `nn.LayerNorm` has another eps than ViT unless you give it one.
#
# **Dropout** sets values to zero at random with probability `dropout`, and divides the others by 1 -
# `dropout`. It acts in training mode only, at three places: after `attn.proj`, after the GELU, and after
# `mlp.fc2`. Attention weights and residuals are never dropped.
#
# A `dim` that `num_heads` does not divide and a `dropout` that is no probability are refused with a
# `ValueError`.
#
# <details><summary>Hint 1: names</summary>
#
# `self.attn` is the module given above. For `mlp.fc1` and `mlp.fc2` you need a module `self.mlp` that holds
# both: a class of your own, or `nn.Sequential(OrderedDict(fc1=..., gelu=..., dropout=..., fc2=...))`.
# </details>
#
# <details><summary>Hint 2: dropout</summary>
#
# `nn.Dropout(dropout)` knows by itself whether the block trains, and refuses rates outside 0 to 1.
# </details>


# %% exercise="EncoderBlock"
class EncoderBlock(nn.Module):
    """One block of the encoder: (B, N, D) to (B, N, D).

    Raises ValueError when num_heads does not divide dim or dropout is not between 0 and 1.
    """

    def __init__(self, dim, num_heads, mlp_dim, dropout=0.0):
        super().__init__()
        ### BEGIN SOLUTION
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = MultiHeadSelfAttention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        layers = {"fc1": nn.Linear(dim, mlp_dim), "gelu": nn.GELU()}
        layers |= {"dropout": nn.Dropout(dropout), "fc2": nn.Linear(mlp_dim, dim)}
        self.mlp = nn.Sequential(OrderedDict(layers))
        self.dropout = nn.Dropout(dropout)
        ### END SOLUTION

    def forward(self, z):
        ### BEGIN SOLUTION
        z = z + self.dropout(self.attn(self.norm1(z)))  # equation 2
        return z + self.dropout(self.mlp(self.norm2(z)))  # equation 3
        ### END SOLUTION


# %% check="EncoderBlock"
check(EncoderBlock)

# %% [markdown]
# **Try it.** The block of ViT-B/16, and what happens to the size of tokens in a stack of twelve new ones.

# %%
block = EncoderBlock(dim=768, num_heads=12, mlp_dim=3072)
print(f"one block: {sum(parameter.numel() for parameter in block.parameters()):,} parameters")

z = torch.randn(1, 197, 768)
with torch.no_grad():
    for number in range(1, 13):
        z = EncoderBlock(dim=768, num_heads=12, mlp_dim=3072)(z)
        print(f"after block {number:2}: standard deviation {z.std().item():.3f}")

# %% [markdown]
# ## What you know now
#
# * Layer normalisation looks at one token at a time, and eps matters when tokens are tiny.
# * Attention mixes tokens, the MLP works on each by itself, and each *adds* to the tokens.
# * Pre-norm leaves a path from the last block to the first on which nothing stands in the way of the
#   gradient.
#
# Next: the assignment `vision_transformer` stacks these blocks into the whole model.
