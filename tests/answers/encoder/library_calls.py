"""As much of torch as the contract allows, the fused multi-head attention included."""

import torch
import torch.nn.functional as F
from torch import nn


def layer_norm(x, weight, bias, eps=1e-6):
    tokens = x.reshape(1, -1, x.size(-1))
    return F.batch_norm(tokens, None, None, training=True, eps=eps).reshape(x.shape) * weight + bias


def gelu(x):
    return x * torch.distributions.Normal(torch.zeros_like(x), torch.ones_like(x), validate_args=False).cdf(x)


def mlp(x, fc1_weight, fc1_bias, fc2_weight, fc2_bias):
    return F.linear(F.gelu(F.linear(x, fc1_weight, fc1_bias)), fc2_weight, fc2_bias)


def encoder_block(x, params, num_heads):
    dim = x.shape[-1]
    if dim % num_heads != 0:
        raise ValueError(f"embed_dim {dim} % num_heads {num_heads} is not 0")
    tokens = F.layer_norm(x, (dim,), params["norm1.weight"], params["norm1.bias"], 1e-6).transpose(0, 1)
    attended, _ = F.multi_head_attention_forward(
        tokens,
        tokens,
        tokens,
        dim,
        num_heads,
        params["attn.qkv.weight"],
        params["attn.qkv.bias"],
        None,
        None,
        False,
        0.0,
        params["attn.proj.weight"],
        params["attn.proj.bias"],
        training=False,
        need_weights=False,
    )
    x = torch.add(x, attended.transpose(0, 1))
    tokens = F.layer_norm(x, (dim,), params["norm2.weight"], params["norm2.bias"], 1e-6)
    return x.add(mlp(tokens, *[value for name, value in params.items() if name.startswith("mlp")]))


class Fused(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x):
        q, k, v = [part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1)]
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2))


class EncoderBlock(nn.Module):
    def __init__(self, dim, num_heads, mlp_dim, dropout=0.0):
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"dim {dim} is not divisible by num_heads {num_heads}")
        if not 0 <= dropout <= 1:
            raise ValueError(f"dropout is a probability, not {dropout}")
        self.rate = dropout
        self.norm1, self.norm2 = nn.LayerNorm(dim, 1e-6), nn.LayerNorm(dim, 1e-6)
        self.attn = Fused(dim, num_heads)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, mlp_dim), "fc2": nn.Linear(mlp_dim, dim)})

    def forward(self, tokens):
        after_attention = tokens + F.dropout(self.attn(self.norm1(tokens)), self.rate, self.training)
        hidden = F.dropout(F.gelu(self.mlp["fc1"](self.norm2(after_attention))), self.rate, self.training)
        return after_attention + F.dropout(self.mlp["fc2"](hidden), self.rate, self.training)
