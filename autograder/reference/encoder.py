"""The encoder block (Dosovitskiy et al. 2021, section 3.1, equations 2 and 3): pre-norm, with timm's names.

Shapes: B images, N tokens, width D, M hidden values of the MLP.
"""

import math
from collections import OrderedDict

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from autograder.reference.attention import MultiHeadSelfAttention, multi_head_self_attention


def layer_norm(
    x: Float[Tensor, "... D"], weight: Float[Tensor, " D"], bias: Float[Tensor, " D"], eps: float = 1e-6
) -> Float[Tensor, "... D"]:
    """Return (x - mean) / √(variance + eps) · weight + bias over the last dimension (Ba et al. 2016).

    The variance is the mean of the squares: it divides by D, not by D - 1.
    """
    mean = x.mean(dim=-1, keepdim=True)
    variance = x.var(dim=-1, keepdim=True, unbiased=False)
    return (x - mean) / torch.sqrt(variance + eps) * weight + bias


def gelu(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Return x · Φ(x), with the normal distribution function Φ(x) = (1 + erf(x / √2)) / 2.

    Hendrycks & Gimpel 2016, equation 1, in its exact form.
    """
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def mlp(
    x: Float[Tensor, "... D"],
    fc1_weight: Float[Tensor, "M D"],
    fc1_bias: Float[Tensor, " M"],
    fc2_weight: Float[Tensor, "D M"],
    fc2_bias: Float[Tensor, " D"],
) -> Float[Tensor, "... D"]:
    """Return fc2(GELU(fc1(x))), the same for every token; weights in the layout of F.linear."""
    hidden = gelu(F.linear(x, fc1_weight, fc1_bias))
    return F.linear(hidden, fc2_weight, fc2_bias)


def encoder_block(
    x: Float[Tensor, "B N D"], params: dict[str, Tensor], num_heads: int
) -> Float[Tensor, "B N D"]:
    """Return z_l from z_{l-1}. Raises ValueError when D is not divisible by num_heads.

    `params` maps norm1.weight, norm1.bias, attn.qkv.weight, … mlp.fc2.bias to tensors.
    """

    layers = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
    norm1, qkv, proj, norm2, fc1, fc2 = (
        (params[f"{name}.weight"], params[f"{name}.bias"]) for name in layers
    )
    x = x + multi_head_self_attention(layer_norm(x, *norm1), *qkv, *proj, num_heads)  # equation 2
    return x + mlp(layer_norm(x, *norm2), *fc1, *fc2)  # equation 3


class EncoderBlock(nn.Module):
    """One layer of the encoder. Its state dict has the names of `encoder_block`'s params, which are timm's.

    In training mode dropout follows attn.proj, the GELU and mlp.fc2 (appendix B.1).
    Raises ValueError when dim is not divisible by num_heads or dropout is not between 0 and 1.
    """

    def __init__(self, dim: int, num_heads: int, mlp_dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = MultiHeadSelfAttention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = nn.Sequential(
            OrderedDict(
                fc1=nn.Linear(dim, mlp_dim),
                gelu=nn.GELU(),
                dropout=nn.Dropout(dropout),
                fc2=nn.Linear(mlp_dim, dim),
            )
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, z: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        """Return z_l from z_{l-1}."""
        z = z + self.dropout(self.attn(self.norm1(z)))  # equation 2: z'_l = MSA(LN(z_{l-1})) + z_{l-1}
        return z + self.dropout(self.mlp(self.norm2(z)))  # equation 3: z_l = MLP(LN(z'_l)) + z'_l
