"""einsum from beginning to end, with no intermediate reshape of the heads."""

import torch
from torch import nn


def stable_softmax(scores: torch.Tensor, dim: int) -> torch.Tensor:
    shifted = scores - scores.detach().amax(dim, keepdim=True)
    return shifted.exp().div(shifted.exp().sum(dim, keepdim=True))


def scaled_dot_product_attention(query, key, value):
    scores = torch.einsum("...id,...jd->...ij", query * query.shape[-1] ** -0.5, key)
    weights = stable_softmax(scores, -1)
    return torch.einsum("...ij,...jd->...id", weights, value), weights


def split_heads(x, num_heads):
    width, rest = divmod(x.shape[-1], num_heads)
    if rest:
        raise ValueError(f"cannot split {x.shape[-1]} channels evenly over {num_heads} heads")
    return torch.einsum("bnhd->bhnd", x.unflatten(-1, (num_heads, width)))


def merge_heads(x):
    return torch.einsum("bhnd->bnhd", x).flatten(start_dim=2)


def multi_head_self_attention(x, qkv_weight, qkv_bias, proj_weight, proj_bias, num_heads):
    dim = x.shape[-1]
    if dim % num_heads:
        raise ValueError(f"dim is {dim}, heads {num_heads}")
    weight = qkv_weight.reshape(3, num_heads, dim // num_heads, dim)
    bias = qkv_bias.reshape(3, 1, num_heads, 1, dim // num_heads)
    q, k, v = torch.einsum("bnc,shdc->sbhnd", x, weight) + bias
    out, _ = scaled_dot_product_attention(q, k, v)
    return torch.einsum("bhnd,chd->bnc", out, proj_weight.reshape(dim, num_heads, -1)) + proj_bias


class MultiHeadSelfAttention(nn.Module):
    def __init__(self, dim, num_heads):
        super().__init__()
        self.qkv, self.proj, self.heads = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim), num_heads

    def forward(self, tokens):
        weights = (self.qkv.weight, self.qkv.bias, self.proj.weight, self.proj.bias)
        return multi_head_self_attention(tokens, *weights, self.heads)
