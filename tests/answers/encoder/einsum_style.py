"""einsum and moments; attention and MLP as modules that hold their own dropout, as in timm."""

import torch
from torch import nn


def layer_norm(x, weight, bias, eps=1e-6):
    variance, mean = torch.var_mean(x, dim=-1, keepdim=True, correction=0)
    return torch.addcmul(bias, (x - mean) * torch.rsqrt(variance + eps), weight)


def gelu(x):
    return x * torch.special.ndtr(x)


def mlp(x, fc1_weight, fc1_bias, fc2_weight, fc2_bias):
    hidden = gelu(torch.einsum("...d,md->...m", x, fc1_weight) + fc1_bias)
    return torch.einsum("...m,dm->...d", hidden, fc2_weight) + fc2_bias


def encoder_block(x, params, num_heads):
    dim = x.shape[-1]
    if dim % num_heads:
        raise ValueError(f"{num_heads} heads do not divide a width of {dim}")
    normed = layer_norm(x, params["norm1.weight"], params["norm1.bias"])
    weight = params["attn.qkv.weight"].view(3, num_heads, -1, dim)
    bias = params["attn.qkv.bias"].view(3, num_heads, 1, -1)
    q, k, v = (torch.einsum("bnd,hed->bhne", normed, w) + b for w, b in zip(weight, bias, strict=True))
    scores = torch.einsum("bhie,bhje->bhij", q, k) * (dim // num_heads) ** -0.5
    mixed = torch.einsum("bhij,bhje->bihe", scores.softmax(-1), v).flatten(2)
    z = x + torch.einsum("bnd,ed->bne", mixed, params["attn.proj.weight"]) + params["attn.proj.bias"]
    names = ("mlp.fc1.weight", "mlp.fc1.bias", "mlp.fc2.weight", "mlp.fc2.bias")
    return z + mlp(
        layer_norm(z, params["norm2.weight"], params["norm2.bias"]), *(params[name] for name in names)
    )


class Attention(nn.Module):
    def __init__(self, dim, num_heads, dropout):
        super().__init__()
        if dim % num_heads != 0:
            raise ValueError(f"dim={dim} must be a multiple of num_heads={num_heads}")
        self.num_heads, self.scale = num_heads, (dim // num_heads) ** -0.5
        self.qkv = nn.Linear(dim, dim * 3)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(dropout)

    def forward(self, x):
        b, n, d = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.num_heads, d // self.num_heads).permute(2, 0, 3, 1, 4)
        weights = torch.softmax(self.scale * q @ k.transpose(-1, -2), dim=-1)
        return self.proj_drop(self.proj((weights @ v).transpose(1, 2).reshape(b, n, d)))


class Mlp(nn.Module):
    def __init__(self, dim, hidden, dropout):
        super().__init__()
        self.fc1, self.act, self.drop1 = nn.Linear(dim, hidden), nn.GELU(), nn.Dropout(dropout)
        self.fc2, self.drop2 = nn.Linear(hidden, dim), nn.Dropout(dropout)

    def forward(self, x):
        return self.drop2(self.fc2(self.drop1(self.act(self.fc1(x)))))


class EncoderBlock(nn.Module):
    def __init__(self, dim, num_heads, mlp_dim, dropout=0.0):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, num_heads, dropout)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, mlp_dim, dropout)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))
