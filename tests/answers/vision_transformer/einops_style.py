"""einops, sums of loops, and attention head by head."""

import torch
from einops import rearrange, reduce, repeat
from torch import nn


class SelfAttention(nn.Module):
    def __init__(self, dim, num_heads):
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"num_heads {num_heads} does not divide dim {dim}")
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x):
        queries, keys, values = rearrange(
            self.qkv(x), "b n (three h d) -> three h b n d", three=3, h=self.num_heads
        )
        heads = []
        for q, k, v in zip(queries, keys, values, strict=True):
            scores = torch.einsum("bid,bjd->bij", q, k) / q.shape[-1] ** 0.5
            heads.append(torch.einsum("bij,bjd->bid", torch.softmax(scores, dim=2), v))
        return self.proj(torch.cat(heads, dim=-1))


class EncoderBlock(nn.Module):
    def __init__(self, dim, num_heads, mlp_dim, dropout):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attn = SelfAttention(dim, num_heads)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, mlp_dim), "fc2": nn.Linear(mlp_dim, dim)})
        self.drop = nn.Dropout(dropout)

    def forward(self, x):
        x = self.drop(self.attn(self.norm1(x))) + x
        hidden = self.drop(torch.nn.functional.gelu(self.mlp.fc1(self.norm2(x))))
        return self.drop(self.mlp.fc2(hidden)) + x


class Patches(nn.Module):
    def __init__(self, channels, size, dim):
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, size, size)
        self.size = size

    def forward(self, images):
        patches = rearrange(images, "b c (h p) (w q) -> b (h w) (c p q)", p=self.size, q=self.size)
        return patches @ rearrange(self.proj.weight, "d c p q -> (c p q) d") + self.proj.bias


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
        h, w = check(image_size, patch_size)
        self.grid, self.pool = (h, w), pool
        if pool != "cls" and pool != "gap":
            raise ValueError(f"pool has to be cls or gap; it is {pool}")
        self.patch_embed = Patches(in_channels, patch_size, dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.empty(1, h * w + 1, dim).normal_(0, 0.02))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential()
        for index in range(depth):
            self.blocks.add_module(str(index), EncoderBlock(dim, num_heads, mlp_dim, dropout))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, num_classes)
        for parameter in self.head.parameters():
            nn.init.constant_(parameter, 0.0)

    def forward(self, images):
        if (
            images.shape[-2] != self.grid[0] * self.patch_embed.size
            or images.shape[-1] != self.grid[1] * self.patch_embed.size
        ):
            raise ValueError("wrong image size")
        tokens = self.patch_embed(images)
        cls = repeat(self.cls_token, "1 1 d -> b 1 d", b=tokens.shape[0])
        z = self.dropout(torch.cat([cls, tokens], dim=1) + self.pos_embed)
        return self.head(pool_tokens(self.norm(self.blocks(z)), self.pool))


def pool_tokens(tokens, pool):
    match pool:
        case "cls":
            return rearrange(tokens[:, :1], "b 1 d -> b d")
        case "gap":
            return reduce(tokens[:, 1:], "b n d -> b d", "mean")
    raise ValueError(f'"{pool}" is not a pool: take "cls" or "gap"')


def check(image_size, patch_size):
    height, width = (image_size, image_size) if type(image_size) is int else image_size
    for name, value in {"height": height, "width": width, "patch_size": patch_size}.items():
        if value <= 0:
            raise ValueError(f"{name} is {value}; it has to be positive")
    for name, value in {"height": height, "width": width}.items():
        if value % patch_size != 0:
            raise ValueError(f"{name} {value} % patch_size {patch_size} is {value % patch_size}, not 0")
    return height // patch_size, width // patch_size


def parameter_count(image_size, patch_size, in_channels, num_classes, dim, depth, mlp_dim):
    h, w = check(image_size, patch_size)
    total = 0
    total += in_channels * patch_size**2 * dim + dim
    total += dim
    total += (h * w + 1) * dim
    for _ in range(depth):
        total += 2 * dim
        total += 3 * dim * dim + 3 * dim
        total += dim * dim + dim
        total += 2 * dim
        total += dim * mlp_dim + mlp_dim
        total += mlp_dim * dim + dim
    total += 2 * dim
    total += dim * num_classes + num_classes
    return total


def macs_per_image(image_size, patch_size, in_channels, num_classes, dim, depth, mlp_dim):
    h, w = check(image_size, patch_size)
    n = h * w
    total = n * (in_channels * patch_size**2) * dim
    for _ in range(depth):
        total += (n + 1) * dim * (3 * dim)
        total += (n + 1) * (n + 1) * dim
        total += (n + 1) * (n + 1) * dim
        total += (n + 1) * dim * dim
        total += (n + 1) * dim * mlp_dim
        total += (n + 1) * mlp_dim * dim
    return total + dim * num_classes
