"""Rearrangements written as patterns; softmax by way of the logarithm of the sum."""

import torch
from einops import einsum, rearrange, reduce
from torch import nn


def stable_softmax(scores, dim):
    top = scores.max(dim, keepdim=True).values
    log_sum = top + (scores - top).exp().sum(dim, keepdim=True).log()
    return (scores - log_sum).exp()


def scaled_dot_product_attention(query, key, value):
    score = einsum(query, key, "... i d, ... j d -> ... i j") / query.shape[-1] ** 0.5
    weight = (score - reduce(score, "... i j -> ... i 1", "max")).exp()
    weight = weight / reduce(weight, "... i j -> ... i 1", "sum")
    return einsum(weight, value, "... i j, ... j d -> ... i d"), weight


def split_heads(x, num_heads):
    if num_heads <= 0 or x.shape[-1] % num_heads:
        raise ValueError(f"x has width {x.shape[-1]}, which is no multiple of {num_heads}")
    return rearrange(x, "b n (h d) -> b h n d", h=num_heads)


def merge_heads(x):
    return rearrange(x, "b h n d -> b n (h d)")


def multi_head_self_attention(x, qkv_weight, qkv_bias, proj_weight, proj_bias, num_heads):
    if num_heads <= 0 or x.shape[-1] % num_heads:
        raise ValueError(f"x has width {x.shape[-1]}, which is no multiple of {num_heads}")
    qkv = x @ qkv_weight.T + qkv_bias
    q, k, v = rearrange(qkv, "b n (three h d) -> three b h n d", three=3, h=num_heads)
    out, _ = scaled_dot_product_attention(q, k, v)
    return merge_heads(out) @ proj_weight.T + proj_bias


class MultiHeadSelfAttention(nn.Module):
    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        if num_heads <= 0 or dim % num_heads:
            raise ValueError(f"embed dim {dim}, heads {num_heads}")
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=True)
        self.proj = nn.Linear(dim, dim, bias=True)
        nn.init.xavier_uniform_(self.qkv.weight)
        nn.init.zeros_(self.qkv.bias)

    def forward(self, x):
        parts = torch.split(self.qkv(x), x.shape[-1], dim=-1)
        q, k, v = (split_heads(part, self.num_heads) for part in parts)
        return self.proj(merge_heads(scaled_dot_product_attention(q, k, v)[0]))
