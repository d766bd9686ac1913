"""Modules for every part, as in timm; counts from a table of layers."""

import torch
import torch.nn as nn


class PatchEmbed(nn.Module):
    def __init__(self, image_size, patch_size, in_channels, dim):
        super().__init__()
        self.proj = nn.Conv2d(in_channels, dim, patch_size, patch_size)
        self.expected = (in_channels, *image_size)

    def forward(self, x):
        assert tuple(x.shape[1:]) == self.expected, f"expected images of shape {self.expected}"
        return self.proj(x).flatten(2).transpose(1, 2)


class Attention(nn.Module):
    def __init__(self, dim, num_heads, drop):
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"dim {dim} must be divisible by num_heads {num_heads}")
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(drop)

    def forward(self, x):
        b, n, d = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        x = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.proj_drop(self.proj(x.transpose(1, 2).reshape(b, n, d)))


class Mlp(nn.Module):
    def __init__(self, dim, hidden, drop):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.GELU()
        self.drop1 = nn.Dropout(drop)
        self.fc2 = nn.Linear(hidden, dim)
        self.drop2 = nn.Dropout(drop)

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


class VisionTransformer(nn.Module):
    def __init__(
        self,
        image_size,
        patch_size,
        in_channels,
        num_classes,
        dim,
        depth,
        num_heads,
        mlp_dim,
        pool="cls",
        dropout=0.0,
    ):
        super().__init__()
        if pool not in {"cls", "gap"}:
            raise ValueError(f"unknown pool {pool}")
        if isinstance(image_size, int):
            image_size = (image_size, image_size)
        for size in image_size:
            if size <= 0 or patch_size <= 0 or size % patch_size:
                raise ValueError(f"image_size {image_size} does not fit patch_size {patch_size}")
        self.pool = pool
        n = (image_size[0] // patch_size) * (image_size[1] // patch_size)
        self.patch_embed = PatchEmbed(image_size, patch_size, in_channels, dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + n, dim))
        self.pos_drop = nn.Dropout(dropout)
        self.blocks = nn.ModuleList([EncoderBlock(dim, num_heads, mlp_dim, dropout) for _ in range(depth)])
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, num_classes)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.apply(self.init)
        nn.init.zeros_(self.head.weight)

    @staticmethod
    def init(module):
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)

    def forward(self, x):
        x = self.patch_embed(x)
        x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), dim=1)
        x = self.pos_drop(x + self.pos_embed)
        for block in self.blocks:
            x = block(x)
        return self.head(pool_tokens(self.norm(x), self.pool))


def pool_tokens(tokens, pool):
    if pool not in ("cls", "gap"):
        raise ValueError(f"pool={pool!r}")
    return tokens[:, 0] if pool == "cls" else tokens[:, 1:].mean(1)


def grid(image_size, patch_size):
    height, width = image_size if isinstance(image_size, (tuple, list)) else (image_size, image_size)
    if height <= 0 or width <= 0 or patch_size <= 0:
        raise ValueError(f"sizes must be positive: image_size {image_size}, patch_size {patch_size}")
    if height % patch_size or width % patch_size:
        raise ValueError(f"image_size {image_size} is no multiple of patch_size {patch_size}")
    return height // patch_size, width // patch_size


def linear(inputs, outputs):
    return inputs * outputs + outputs


def parameter_count(image_size, patch_size, in_channels, num_classes, dim, depth, mlp_dim):
    rows, columns = grid(image_size, patch_size)
    layers = {
        "patch_embed": linear(patch_size * patch_size * in_channels, dim),
        "cls_token": dim,
        "pos_embed": (rows * columns + 1) * dim,
        "attention": depth * (linear(dim, 3 * dim) + linear(dim, dim)),
        "mlp": depth * (linear(dim, mlp_dim) + linear(mlp_dim, dim)),
        "norms": (2 * depth + 1) * 2 * dim,
        "head": linear(dim, num_classes),
    }
    return sum(layers.values())


def macs_per_image(image_size, patch_size, in_channels, num_classes, dim, depth, mlp_dim):
    rows, columns = grid(image_size, patch_size)
    n = rows * columns
    products = [(n, patch_size * patch_size * in_channels, dim), (1, dim, num_classes)]
    t = n + 1
    products += depth * [
        (t, dim, 3 * dim),
        (t, dim, t),
        (t, t, dim),
        (t, dim, dim),
        (t, dim, mlp_dim),
        (t, mlp_dim, dim),
    ]
    return sum(a * b * c for a, b, c in products)
