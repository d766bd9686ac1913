"""Parameters in plain containers, everything else in functions; counts as polynomials."""

import math

import torch
import torch.nn.functional as F
from torch import nn


def affine(outputs, *inputs):
    layer = nn.Module()
    layer.weight = nn.Parameter(torch.randn(outputs, *inputs) / math.sqrt(math.prod(inputs)))
    layer.bias = nn.Parameter(torch.zeros(outputs))
    return layer


def norm(dim):
    layer = nn.Module()
    layer.weight, layer.bias = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim))
    return layer


def block(dim, mlp_dim, num_heads):
    made = nn.Module()
    made.norm1, made.norm2, made.attn, made.mlp = norm(dim), norm(dim), nn.Module(), nn.Module()
    made.attn.num_heads = num_heads
    made.attn.qkv, made.attn.proj = affine(3 * dim, dim), affine(dim, dim)
    made.mlp.fc1, made.mlp.fc2 = affine(mlp_dim, dim), affine(dim, mlp_dim)
    return made


def apply_norm(x, layer):
    return F.layer_norm(x, (x.size(-1),), layer.weight, layer.bias, 1e-6)


def dense(x, layer):
    return x @ layer.weight.T + layer.bias


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
        if dim % num_heads != 0:
            raise ValueError(f"dim={dim}, num_heads={num_heads}")
        pool_tokens(torch.zeros(1, 2, 1), pool)
        self.size = (image_size,) * 2 if isinstance(image_size, int) else tuple(image_size)
        tokens = count_patches(image_size, patch_size) + 1
        self.patch_size, self.pool, self.rate = patch_size, pool, dropout
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.normal(0.0, 0.02, (1, tokens, dim)))
        self.patch_embed = nn.Module()
        self.patch_embed.proj = affine(dim, in_channels, patch_size, patch_size)
        self.blocks = nn.ModuleList(block(dim, mlp_dim, num_heads) for _ in range(depth))
        self.norm = norm(dim)
        self.head = affine(num_classes, dim)
        self.head.weight.data.zero_()

    def drop(self, x):
        return F.dropout(x, self.rate, self.training)

    def encode(self, z, layer):
        heads = layer.attn.num_heads
        q, k, v = (
            dense(apply_norm(z, layer.norm1), layer.attn.qkv)
            .unflatten(-1, (3, heads, -1))
            .permute(2, 0, 3, 1, 4)
        )
        weights = (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1)
        z = z + self.drop(dense((weights @ v).transpose(1, 2).flatten(2), layer.attn.proj))
        hidden = self.drop(F.gelu(dense(apply_norm(z, layer.norm2), layer.mlp.fc1)))
        return z + self.drop(dense(hidden, layer.mlp.fc2))

    def forward(self, images):
        if tuple(images.shape[2:]) != self.size:
            raise ValueError(f"the model wants {self.size}, not {tuple(images.shape[2:])}")
        proj = self.patch_embed.proj
        patches = F.unfold(images, self.patch_size, stride=self.patch_size).transpose(1, 2)
        z = F.linear(patches, proj.weight.flatten(1), proj.bias)
        z = torch.cat([self.cls_token.repeat(len(z), 1, 1), z], 1)
        z = self.drop(z + self.pos_embed)
        for layer in self.blocks:
            z = self.encode(z, layer)
        return dense(pool_tokens(apply_norm(z, self.norm), self.pool), self.head)


def pool_tokens(tokens, pool):
    poolings = {
        "cls": lambda: tokens.select(1, 0),
        "gap": lambda: tokens.narrow(1, 1, tokens.shape[1] - 1).mean(dim=-2),
    }
    if pool not in poolings:
        raise ValueError(f"pool can be {' or '.join(poolings)}, and not {pool}")
    return poolings[pool]()


def count_patches(image_size, patch_size):
    try:
        height, width = image_size
    except TypeError:
        height = width = image_size
    if patch_size < 1:
        raise ValueError(f"patch_size = {patch_size}")
    if min(height, width) < 1 or height % patch_size or width % patch_size:
        raise ValueError(f"{height} x {width} pixels (image_size) and a patch_size of {patch_size}")
    return height * width // patch_size**2


def parameter_count(image_size, patch_size, in_channels, num_classes, dim, depth, mlp_dim):
    n = count_patches(image_size, patch_size)
    per_block = 4 * dim**2 + 2 * dim * mlp_dim + 9 * dim + mlp_dim
    return dim * (patch_size**2 * in_channels + n + 5) + depth * per_block + num_classes * (dim + 1)


def macs_per_image(image_size, patch_size, in_channels, num_classes, dim, depth, mlp_dim):
    n = count_patches(image_size, patch_size)
    per_token = 4 * dim * dim + 2 * dim * mlp_dim + 2 * (n + 1) * dim
    return n * patch_size**2 * in_channels * dim + depth * (n + 1) * per_token + dim * num_classes
