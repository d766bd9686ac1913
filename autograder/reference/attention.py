"""Self-attention (Vaswani et al. 2017, section 3.2; Dosovitskiy et al. 2021, appendix A, equations 5 to 8).

Shapes: B images, N tokens, width D, h heads of width d = D / h.
"""

import math

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


def stable_softmax(scores: Float[Tensor, "..."], dim: int) -> Float[Tensor, "..."]:
    """Return exp(s - m) / Σ exp(s - m) along dim, where m is the largest score along dim.

    Subtracting m changes nothing in exact arithmetic and keeps exp from overflowing: no argument is above 0.
    """
    largest = scores.amax(dim=dim, keepdim=True)
    exponentials = (scores - largest).exp()
    return exponentials / exponentials.sum(dim=dim, keepdim=True)


def scaled_dot_product_attention(
    query: Float[Tensor, "... N d"], key: Float[Tensor, "... N d"], value: Float[Tensor, "... N d"]
) -> tuple[Float[Tensor, "... N d"], Float[Tensor, "... N N"]]:
    """Return (A v, A) with A = softmax(q kᵀ / √d): equations 6 and 7."""
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    weights = stable_softmax(scores, dim=-1)  # each row sums to one
    return weights @ value, weights


def split_heads(x: Float[Tensor, "B N D"], num_heads: int) -> Float[Tensor, "B h N d"]:
    """Cut the width D into num_heads equal parts, side by side: head j gets entries j d to (j + 1) d - 1.

    Raises ValueError when D is not divisible by num_heads.
    """
    batch, tokens, dim = x.shape
    if num_heads < 1 or dim % num_heads != 0:
        raise ValueError(f"dim {dim} is not divisible by num_heads {num_heads}")
    return x.reshape(batch, tokens, num_heads, dim // num_heads).transpose(1, 2)


def merge_heads(x: Float[Tensor, "B h N d"]) -> Float[Tensor, "B N D"]:
    """Put the heads of every token side by side again: the inverse of `split_heads`."""
    batch, num_heads, tokens, head_dim = x.shape
    return x.transpose(1, 2).reshape(batch, tokens, num_heads * head_dim)


def multi_head_self_attention(
    x: Float[Tensor, "B N D"],
    qkv_weight: Float[Tensor, "3*D D"],
    qkv_bias: Float[Tensor, "3*D"],
    proj_weight: Float[Tensor, "D D"],
    proj_bias: Float[Tensor, " D"],
    num_heads: int,
) -> Float[Tensor, "B N D"]:
    """Return MSA(x) = [SA_1(x); …; SA_h(x)] U_msa + b, equations 5 to 8; weights as F.linear wants them.

    The rows of qkv_weight make queries, then keys, then values. Raises ValueError when D is not divisible
    by num_heads.
    """
    q, k, v = F.linear(x, qkv_weight, qkv_bias).chunk(3, dim=-1)  # equation 5: each (B, N, D)
    q, k, v = split_heads(q, num_heads), split_heads(k, num_heads), split_heads(v, num_heads)
    heads, _ = scaled_dot_product_attention(q, k, v)  # equations 6 and 7, in each head by itself
    return F.linear(merge_heads(heads), proj_weight, proj_bias)  # equation 8


class MultiHeadSelfAttention(nn.Module):
    """MSA as a module with parameters `qkv.weight (3D, D)`, `qkv.bias`, `proj.weight (D, D)` and `proj.bias`.

    Raises ValueError when dim is not divisible by num_heads.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        if num_heads < 1 or dim % num_heads != 0:
            raise ValueError(f"dim {dim} is not divisible by num_heads {num_heads}")
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        """Let every token gather from all tokens."""
        return multi_head_self_attention(
            x, self.qkv.weight, self.qkv.bias, self.proj.weight, self.proj.bias, self.num_heads
        )
