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
# # Self-attention
#
# So far every token knows its own patch only. Self-attention lets each token look at all the others and
# gather what it needs. This assignment builds it from the softmax up to *multi-head self-attention* (MSA),
# the first half of every layer of a Transformer. These are equations 5 to 8 of the paper (appendix A).
#
# | symbol | meaning | ViT-B/16 at 224 pixels |
# |---|---|---|
# | $N$ | number of tokens, [CLS] counted | 197 |
# | $D$ | width of a token | 768 |
# | $h$ | number of heads | 12 |
# | $d = D / h$ | width of a head | 64 |
# | $q, k, v$ | query, key and value of each token | 197 × 64 in each head |
# | $A$ | attention weights | 197 × 197 in each head |
#
# Chapter 4 of the book explains every step.

# %% [markdown]
# ## How to work
#
# 1. Write your code where a cell says `Your code here`, and delete the line `raise NotImplementedError`.
# 2. Run the cell, then run the check below it. The check lists what your answer does right, in order, and
#    explains the first thing that is not right yet.
# 3. Stuck? Open one hint, close it, try again. The hints get more concrete from one to the next.
#
# Keep `checks.py` and `cases.safetensors` in the same folder as this notebook. Grading runs the same checks
# on other inputs. You may use all of PyTorch but the function that an exercise is about: no library softmax
# (nor log_softmax, nor logsumexp) in exercise 1, and no `F.scaled_dot_product_attention`,
# `nn.MultiheadAttention` or `F.multi_head_attention_forward` in exercises 2, 5 and 6.
#
# **What every answer owes its caller:** the result has the dtype and the device of the input, the input is
# not changed, gradients reach every input and parameter, and what does not fit is refused with an error.

# %%
import math

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from checks import check
from torch import nn

# %% [markdown]
# ## 1 · Scores become weights
#
# The softmax turns scores $s_j$ into positive weights that sum to one:
#
# $$a_j = \frac{e^{s_j}}{\sum_i e^{s_i}}$$
#
# Scores 0, 1, 2 give 1, 2.718, 7.389, with the sum 11.107, so the weights are 0.090, 0.245, 0.665.
#
# On a computer the formula breaks: $e^{89}$ is too large for float32, and inf / inf is NaN. Subtracting the
# same number $m$ from all scores changes no weight, since $e^{s-m} = e^s / e^m$ and the $e^m$ cancel. Choose
# $m$ so that nothing overflows. Your weights have to be right for scores of ±10,000.
#
# `dim` is the axis along which the weights sum to one. It may be negative, and there may be any number of
# other axes.
#
# <details><summary>Hint 1: which number to subtract</summary>
#
# Overflow comes from large positive arguments. Make the largest one 0. Each row needs its own $m$: with one
# $m$ for all, a row far below it would become 0 / 0.
# </details>
#
# <details><summary>Hint 2: shapes</summary>
#
# `amax` and `sum` take `dim` and `keepdim=True`. With the axis kept at length 1, broadcasting lines up.
# </details>


# %% exercise="stable_softmax"
def stable_softmax(scores, dim):
    """Return weights along dim, in the shape of scores. No library softmax."""
    ### BEGIN SOLUTION
    largest = scores.amax(dim=dim, keepdim=True)
    exponentials = (scores - largest).exp()
    return exponentials / exponentials.sum(dim=dim, keepdim=True)
    ### END SOLUTION


# %% check="stable_softmax"
check(stable_softmax)

# %% [markdown]
# **Try it.** Multiply the scores by 10: the softmax gets close to picking the largest one.

# %%
scores = torch.tensor([0.0, 1.0, 2.0])
for factor in (0.1, 1.0, 10.0):
    weights = [f"{weight:.4f}" for weight in stable_softmax(factor * scores, 0).tolist()]
    print(f"scores × {factor:<4}  weights {', '.join(weights)}")

# %% [markdown]
# ## 2 · Attention
#
# Every token asks a question, its query $q_i$. Every token offers a key $k_j$. The better the two agree, the
# more of the value $v_j$ the asking token takes:
#
# $$A = \text{softmax}\!\left(\frac{q k^\top}{\sqrt{d}}\right) \in \mathbb{R}^{N \times N}
# \qquad \text{output} = A v \in \mathbb{R}^{N \times d}$$
#
# Row $i$ of $A$ belongs to query $i$ and sums to one. Why $\sqrt{d}$? A dot product of $d$ random terms has
# standard deviation $\sqrt{d}$. Without the division the scores grow with $d$ and the softmax gets too
# sharp, as above with the factor 10.
#
# Return both, `(output, weights)`. There may be any number of axes before the last two.
#
# <details><summary>Hint 1: the transpose</summary>
#
# $k^\top$ swaps the last two axes and leaves those before them alone: `key.transpose(-2, -1)`.
# </details>
#
# <details><summary>Hint 2: which axis</summary>
#
# The scores are (..., queries, keys). Each query spreads its weight over the keys: the last axis.
# </details>


# %% exercise="scaled_dot_product_attention"
def scaled_dot_product_attention(query, key, value):
    """Return (output, weights) of attention.

    query, key, value: (..., N, d). output: (..., N, d), weights: (..., N, N).
    """
    ### BEGIN SOLUTION
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    weights = stable_softmax(scores, dim=-1)
    return weights @ value, weights
    ### END SOLUTION


# %% check="scaled_dot_product_attention"
check(scaled_dot_product_attention)

# %% [markdown]
# **Try it.** Six tokens, and the third asks with the key of the fifth. Which column is bright in row 2?

# %%
key = torch.randn(6, 32)
query = torch.randn(6, 32)
query[2] = 2 * key[4]
_, weights = scaled_dot_product_attention(query, key, torch.randn(6, 32))
plt.figure(figsize=(3.2, 2.8))
plt.imshow(weights, vmin=0, vmax=1)
plt.colorbar()
plt.xlabel("key")
plt.ylabel("query")
plt.show()

# %% [markdown]
# ## 3 · Cut into heads
#
# One softmax can look at one kind of thing at a time. So MSA runs $h$ of them side by side, each on its own
# part of the width. Head 0 gets entries 0 to $d - 1$ of every token, head 1 the next $d$, and so on.
#
# `split_heads` turns (B, N, D) into (B, h, N, d). The axis of heads comes before the tokens, so that each
# head is a sequence of its own. When `num_heads` does not divide D, raise a `ValueError` that names both.
#
# <details><summary>Hint 1: the plan</summary>
#
# Split the last axis in two, then swap two axes.
# </details>
#
# <details><summary>Hint 2: the order</summary>
#
# Neighbours stay together, so D splits into (h, d): the outer axis counts heads.
# </details>


# %% exercise="split_heads"
def split_heads(x, num_heads):
    """Cut the width of every token into heads: (B, N, D) to (B, h, N, D/h).

    Raises ValueError when D is not divisible by num_heads.
    """
    ### BEGIN SOLUTION
    batch, tokens, dim = x.shape
    if num_heads < 1 or dim % num_heads != 0:
        raise ValueError(f"dim {dim} is not divisible by num_heads {num_heads}")
    return x.reshape(batch, tokens, num_heads, dim // num_heads).transpose(1, 2)
    ### END SOLUTION


# %% check="split_heads"
check(split_heads)

# %% [markdown]
# ## 4 · Put the heads together
#
# `merge_heads` is the inverse: (B, h, N, d) back to (B, N, D), all of head 0 first.
#
# <details><summary>Hint</summary>
#
# Walk the two steps of `split_heads` backwards. A `reshape` alone never moves a value: swap the axes first.
# </details>


# %% exercise="merge_heads"
def merge_heads(x):
    """Put the heads of every token side by side: (B, h, N, d) to (B, N, h*d)."""
    ### BEGIN SOLUTION
    batch, num_heads, tokens, head_dim = x.shape
    return x.transpose(1, 2).reshape(batch, tokens, num_heads * head_dim)
    ### END SOLUTION


# %% check="merge_heads"
check(merge_heads)

# %% [markdown]
# **Try it.** Nothing may be lost on the way there and back.

# %%
x = torch.randn(2, 5, 12)
print("the same again:", torch.equal(merge_heads(split_heads(x, 3)), x))

# %% [markdown]
# ## 5 · Multi-head self-attention
#
# Now all of it. One linear map makes queries, keys and values at once, heads attend, one more linear map
# mixes what they found:
#
# $$[q, k, v] = x W_{qkv}^\top + b_{qkv} \qquad
# \text{MSA}(x) = [\,\text{SA}_1;\; \dots;\; \text{SA}_h\,]\, W_{proj}^\top + b_{proj}$$
#
# * The weights have the layout of `F.linear`: (outputs, inputs). So `qkv_weight` is (3D, D).
# * The first D outputs are the queries, the next D the keys, the last D the values. Each of them is cut into
#   heads.
# * Each head scales by $\sqrt{d}$, the root of its own width.
#
# <details><summary>Hint 1: the plan</summary>
#
# `F.linear`, cut in three, `split_heads` for each, attention, `merge_heads`, `F.linear`. Six lines.
# </details>
#
# <details><summary>Hint 2: cut in three</summary>
#
# `.chunk(3, dim=-1)` cuts the last axis into three blocks.
# </details>


# %% exercise="multi_head_self_attention"
def multi_head_self_attention(x, qkv_weight, qkv_bias, proj_weight, proj_bias, num_heads):
    """Let every token gather from all tokens, with several heads.

    x: (B, N, D), qkv_weight: (3D, D), qkv_bias: (3D,), proj_weight: (D, D), proj_bias: (D,).
    Returns (B, N, D). Raises ValueError when D is not divisible by num_heads.
    """
    ### BEGIN SOLUTION
    q, k, v = F.linear(x, qkv_weight, qkv_bias).chunk(3, dim=-1)
    q, k, v = split_heads(q, num_heads), split_heads(k, num_heads), split_heads(v, num_heads)
    heads, _ = scaled_dot_product_attention(q, k, v)
    return F.linear(merge_heads(heads), proj_weight, proj_bias)
    ### END SOLUTION


# %% check="multi_head_self_attention"
check(multi_head_self_attention)

# %% [markdown]
# **Try it.** Shuffle the tokens and the output is shuffled the same way: MSA does not know the order. That
# is why $z_0$ has position embeddings.

# %%
x = torch.randn(1, 6, 8)
parameters = (torch.randn(24, 8), torch.randn(24), torch.randn(8, 8), torch.randn(8))
order = torch.randperm(6)
straight = multi_head_self_attention(x, *parameters, 2)
shuffled = multi_head_self_attention(x[:, order], *parameters, 2)
print("largest difference", (straight[:, order] - shuffled).abs().max().item())

# %% [markdown]
# ## 6 · As a module
#
# `MultiHeadSelfAttention(dim, num_heads)` keeps the parameters: `qkv.weight` (3D, D), `qkv.bias`,
# `proj.weight` (D, D) and `proj.bias`, the names that real libraries use. So the layers are two `nn.Linear`
# called `qkv` and `proj`, and nothing else. Refuse a `dim` that `num_heads` does not divide.
#
# <details><summary>Hint</summary>
#
# `nn.Linear(dim, 3 * dim)` has a weight of shape (3D, D), just what exercise 5 takes. Keep `num_heads` as an
# attribute and hand everything over in `forward`.
# </details>


# %% exercise="MultiHeadSelfAttention"
class MultiHeadSelfAttention(nn.Module):
    """Multi-head self-attention with parameters qkv.weight, qkv.bias, proj.weight and proj.bias.

    Raises ValueError when dim is not divisible by num_heads.
    """

    def __init__(self, dim, num_heads):
        super().__init__()
        ### BEGIN SOLUTION
        if num_heads < 1 or dim % num_heads != 0:
            raise ValueError(f"dim {dim} is not divisible by num_heads {num_heads}")
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        ### END SOLUTION

    def forward(self, x):
        """Let every token gather from all tokens: (B, N, D) to (B, N, D)."""
        ### BEGIN SOLUTION
        return multi_head_self_attention(
            x, self.qkv.weight, self.qkv.bias, self.proj.weight, self.proj.bias, self.num_heads
        )
        ### END SOLUTION


# %% check="MultiHeadSelfAttention"
check(MultiHeadSelfAttention)

# %% [markdown]
# **Try it.** How many parameters does the attention of one layer of ViT-B/16 have? By hand it is
# $(3D^2 + 3D) + (D^2 + D)$ with $D = 768$. The number of heads does not matter.

# %%
for num_heads in (1, 12):
    layer = MultiHeadSelfAttention(768, num_heads)
    print(f"{num_heads:2} heads: {sum(parameter.numel() for parameter in layer.parameters()):,} parameters")

# %% [markdown]
# ## What you know now
#
# * Attention is a weighted mean of values. The weights come from queries and keys, by a softmax over keys.
# * Scores are divided by $\sqrt{d}$, so that the softmax does not get too sharp as heads get wider.
# * Heads are blocks of the width. They attend independently and are mixed by one linear map.
# * Order means nothing to attention: permuted tokens give permuted outputs.
#
# Next: the assignment `encoder` puts MSA into a layer, with LayerNorm, an MLP and residual connections.
