"""Loops over tokens and heads, sums written out, dropout from a mask of its own."""

import torch
from torch import nn


def layer_norm(x, weight, bias, eps=1e-6):
    normed = []
    for token in x.reshape(-1, x.shape[-1]):
        centred = token - token.sum() / token.numel()
        normed.append(centred / ((centred * centred).sum() / token.numel() + eps) ** 0.5)
    return weight * torch.stack(normed).reshape(x.shape) + bias


def gelu(x):
    return 0.5 * x * torch.erfc(-x / torch.sqrt(torch.tensor(2.0)))


def mlp(x, fc1_weight, fc1_bias, fc2_weight, fc2_bias):
    rows = []
    for token in x.flatten(0, -2):
        hidden = gelu(fc1_weight @ token + fc1_bias)
        rows.append(fc2_weight @ hidden + fc2_bias)
    return torch.stack(rows).reshape(*x.shape[:-1], -1)


def attend(x, qkv_weight, qkv_bias, proj_weight, proj_bias, num_heads):
    dim = x.shape[2]
    size = dim // num_heads
    images = []
    for image in x:
        columns = image @ qkv_weight.t() + qkv_bias
        heads = []
        for start in range(0, dim, size):
            q, k, v = (columns[:, part + start : part + start + size] for part in (0, dim, 2 * dim))
            scores = (q @ k.t()) / size**0.5
            exponentials = torch.exp(scores - scores.max(dim=1, keepdim=True).values)
            heads.append(exponentials / exponentials.sum(dim=1, keepdim=True) @ v)
        images.append(torch.cat(heads, dim=1) @ proj_weight.t() + proj_bias)
    return torch.stack(images)


def encoder_block(x, params, num_heads):
    if x.shape[-1] % num_heads != 0:
        raise ValueError("num_heads = " + str(num_heads) + " does not divide the width of the tokens")
    p = dict(params)
    normed = layer_norm(x, p["norm1.weight"], p["norm1.bias"])
    x = x + attend(
        normed,
        p["attn.qkv.weight"],
        p["attn.qkv.bias"],
        p["attn.proj.weight"],
        p["attn.proj.bias"],
        num_heads,
    )
    normed = layer_norm(x, p["norm2.weight"], p["norm2.bias"])
    return x + mlp(normed, p["mlp.fc1.weight"], p["mlp.fc1.bias"], p["mlp.fc2.weight"], p["mlp.fc2.bias"])


class Weights(nn.Module):
    def __init__(self, *shape):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(*shape) * 0.02 if len(shape) > 1 else torch.ones(*shape))
        self.bias = nn.Parameter(torch.zeros(shape[0]))


class EncoderBlock(nn.Module):
    def __init__(self, dim, num_heads, mlp_dim, dropout=0.0):
        super().__init__()
        if num_heads <= 0 or dim % num_heads:
            raise ValueError(f"num_heads={num_heads}")
        if dropout < 0 or dropout >= 1:
            raise ValueError(f"dropout={dropout}")
        self.num_heads = num_heads
        self.dropout = dropout
        self.norm1, self.norm2 = Weights(dim), Weights(dim)
        self.attn, self.mlp = nn.Module(), nn.Module()
        self.attn.qkv, self.attn.proj = Weights(3 * dim, dim), Weights(dim, dim)
        self.mlp.fc1, self.mlp.fc2 = Weights(mlp_dim, dim), Weights(dim, mlp_dim)

    def drop(self, x):
        if not self.training or self.dropout == 0:
            return x
        return x * (torch.rand_like(x) >= self.dropout).to(x.dtype) / (1 - self.dropout)

    def forward(self, x):
        qkv, proj, fc1, fc2 = self.attn.qkv, self.attn.proj, self.mlp.fc1, self.mlp.fc2
        normed = layer_norm(x, self.norm1.weight, self.norm1.bias)
        x = x + self.drop(attend(normed, qkv.weight, qkv.bias, proj.weight, proj.bias, self.num_heads))
        normed = layer_norm(x, self.norm2.weight, self.norm2.bias)
        hidden = self.drop(gelu(normed @ fc1.weight.mT + fc1.bias))
        return x + self.drop(hidden @ fc2.weight.mT + fc2.bias)
