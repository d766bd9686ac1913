"""einops; the module calls the function with its own state dict."""

from collections import OrderedDict
from math import pi, sqrt

import torch
from einops import einsum, rearrange, reduce
from torch import nn
from torch.nn import functional as F


def layer_norm(x, weight, bias, eps=1e-6):
    centred = x - reduce(x, "... d -> ... 1", "mean")
    variance = reduce(centred**2, "... d -> ... 1", "mean")
    return centred * (variance + eps).pow(-0.5) * weight + bias


class Gelu(torch.autograd.Function):
    """With the derivative Φ(x) + x φ(x) by hand."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.mul(0.5).mul(1 + torch.erf(x * 0.7071067811865476))

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad * (
            0.5 + torch.erf(x * 0.7071067811865476) / 2 + x * torch.exp(-0.5 * x * x) / sqrt(2 * pi)
        )


def gelu(x):
    return Gelu.apply(x)


def mlp(x, fc1_weight, fc1_bias, fc2_weight, fc2_bias):
    hidden = gelu(einsum(x, fc1_weight, "... d, m d -> ... m") + fc1_bias)
    return einsum(hidden, fc2_weight, "... m, d m -> ... d") + fc2_bias


def encoder_block(x, params, num_heads, drop=lambda t: t):
    dim = x.shape[-1]
    if dim % num_heads != 0:
        raise ValueError(f"Embedding dimension {dim} must be divisible by number of heads {num_heads}")
    get = {name.replace(".", "_"): value for name, value in params.items()}
    y = layer_norm(x, get["norm1_weight"], get["norm1_bias"])
    y = F.linear(y, get["attn_qkv_weight"], get["attn_qkv_bias"])
    q, k, v = rearrange(y, "b n (three h d) -> three b h n d", three=3, h=num_heads)
    weights = F.softmax(einsum(q, k, "b h i d, b h j d -> b h i j") / sqrt(q.shape[-1]), dim=-1)
    y = rearrange(einsum(weights, v, "b h i j, b h j d -> b h i d"), "b h n d -> b n (h d)")
    x = x + drop(F.linear(y, get["attn_proj_weight"], get["attn_proj_bias"]))
    y = layer_norm(x, get["norm2_weight"], get["norm2_bias"])
    hidden = drop(gelu(F.linear(y, get["mlp_fc1_weight"], get["mlp_fc1_bias"])))
    return x + drop(F.linear(hidden, get["mlp_fc2_weight"], get["mlp_fc2_bias"]))


class EncoderBlock(nn.Module):
    def __init__(self, dim, num_heads, mlp_dim, dropout=0.0):
        super().__init__()
        if dim % num_heads != 0:
            raise ValueError(f"d_model {dim}, heads {num_heads}")
        self.num_heads = num_heads
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.attn = nn.Sequential(OrderedDict(qkv=nn.Linear(dim, 3 * dim), proj=nn.Linear(dim, dim)))
        self.mlp = nn.Sequential(OrderedDict(fc1=nn.Linear(dim, mlp_dim), fc2=nn.Linear(mlp_dim, dim)))
        self.drop = nn.Dropout(dropout)

    def forward(self, x):
        return encoder_block(x, dict(self.named_parameters()), self.num_heads, self.drop)
