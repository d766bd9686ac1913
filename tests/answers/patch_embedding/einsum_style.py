"""einsum, torch.cat and a Conv2d."""

import torch
from torch import nn


def embed_patches(patches, weight, bias=None):
    tokens = torch.einsum("bnp,pd->bnd", patches, weight)
    return tokens if bias is None else tokens + bias


def prepend_cls_token(tokens, cls_token):
    return torch.cat((cls_token.repeat(tokens.shape[0], 1, 1), tokens), dim=1)


def add_position_embedding(tokens, position_embedding):
    if tokens.shape[1] != position_embedding.shape[1]:
        raise ValueError(f"{tokens.shape[1]} tokens, {position_embedding.shape[1]} positions")
    return torch.add(tokens, position_embedding)


class PatchEmbedding(nn.Module):
    def __init__(self, image_size, patch_size, in_channels, dim):
        super().__init__()
        if isinstance(image_size, int):
            image_size = (image_size, image_size)
        self.h, self.w = image_size
        for side in (self.h, self.w, patch_size):
            if side <= 0:
                raise ValueError(f"image_size {image_size} and patch_size {patch_size} have to be positive")
        if self.h % patch_size or self.w % patch_size:
            raise ValueError(f"image_size {image_size} is not a multiple of {patch_size}")
        n = self.h * self.w // patch_size**2
        self.proj = nn.Conv2d(in_channels, dim, patch_size, patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.empty(1, n + 1, dim).normal_(std=0.02))

    def forward(self, images):
        _, _, h, w = images.shape
        if (h, w) != (self.h, self.w):
            raise ValueError(f"expected {self.h}x{self.w}, got {h}x{w}")
        x = self.proj(images)
        x = torch.einsum("bdhw->bhwd", x).flatten(1, 2)
        return add_position_embedding(prepend_cls_token(x, self.cls_token), self.pos_embed)
