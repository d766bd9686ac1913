"""The parts of the paper's model, one class for each box of its Figure 1.

Shapes: B images, C channels, patch size P, N tokens, width D, h heads of size d = D / h.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

GELU = {"exact": "none", "tanh": "tanh"}  # the form's name here, and torch's


class PatchEmbedding(nn.Module):
    """x ↦ [x_p¹E; …; x_pᴺE]. A convolution with stride P equal to its size maps every patch linearly."""

    def __init__(self, patch_size: int, in_channels: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B N D"]:
        """Return one token a patch, row by row."""
        return self.proj(images).flatten(2).transpose(1, 2)


class MultiHeadSelfAttention(nn.Module):
    """MSA (appendix A, equations 5 to 8). Dropout follows the output projection, never q, k and v.

    Raises ValueError when `dim` is not divisible by `num_heads`.
    """

    def __init__(self, dim: int, num_heads: int, dropout: float = 0.0, qkv_bias: bool = True) -> None:
        super().__init__()
        if num_heads < 1 or dim % num_heads:
            raise ValueError(f"dim={dim} is not divisible by num_heads={num_heads}; heads need equal parts")
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(dropout)

    def forward(self, z: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        """Let every token gather from all tokens."""
        # Taken apart before the heads move to the front: backward then joins their gradients without a copy.
        parts = self.qkv(z).unflatten(-1, (3, self.num_heads, -1)).unbind(2)
        q, k, v = (part.transpose(1, 2) for part in parts)  # each (B, h, N, d)
        # Fused: softmax(q kᵀ / √d) v as in lowlevel.py, without the N × N weights.
        heads = F.scaled_dot_product_attention(q, k, v)
        return self.proj_drop(self.proj(heads.transpose(1, 2).flatten(2)))


class Mlp(nn.Module):
    """Two dense layers with a GELU between them, dropout after each.

    Raises ValueError for a `gelu` other than "exact" (x·Φ(x), with erf) and "tanh" (its approximation).
    """

    def __init__(self, dim: int, mlp_dim: int, dropout: float = 0.0, gelu: str = "exact") -> None:
        super().__init__()
        if gelu not in GELU:
            raise ValueError(f"gelu={gelu!r} is unknown; choose one of {', '.join(GELU)}")
        self.fc1 = nn.Linear(dim, mlp_dim)
        self.act = nn.GELU(approximate=GELU[gelu])
        self.drop1 = nn.Dropout(dropout)
        self.fc2 = nn.Linear(mlp_dim, dim)
        self.drop2 = nn.Dropout(dropout)

    def forward(self, z: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        """Transform every token by itself."""
        return self.drop2(self.fc2(self.drop1(self.act(self.fc1(z)))))


class EncoderBlock(nn.Module):
    """One layer of the encoder, with layer normalisation before each half (equations 2 and 3)."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_dim: int,
        dropout: float = 0.0,
        *,
        norm_eps: float = 1e-6,
        gelu: str = "exact",
        qkv_bias: bool = True,
    ) -> None:
        super().__init__()

        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = MultiHeadSelfAttention(dim, num_heads, dropout, qkv_bias)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, mlp_dim, dropout, gelu)

    def forward(self, z: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        """Return z_l from z_{l-1}."""
        z = self.attn(self.norm1(z)) + z  # equation 2: z'_l = MSA(LN(z_{l-1})) + z_{l-1}
        return self.mlp(self.norm2(z)) + z  # equation 3: z_l = MLP(LN(z'_l)) + z'_l
