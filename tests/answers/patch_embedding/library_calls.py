"""F.linear, F.unfold and init functions."""

import torch
import torch.nn.functional as F
from torch import nn


def embed_patches(patches, weight, bias=None):
    return F.linear(patches, weight.T, bias)


def prepend_cls_token(tokens, cls_token):
    first = cls_token.expand(len(tokens), 1, tokens.size(-1))
    return torch.hstack([first, tokens])


def add_position_embedding(tokens, position_embedding):
    assert tokens.size(1) == position_embedding.size(1), "one position for each token"
    return tokens + position_embedding.expand_as(tokens)


class PatchEmbedding(nn.Module):
    def __init__(self, image_size, patch_size, in_channels, dim):
        super().__init__()
        size = tuple(image_size) if isinstance(image_size, (tuple, list)) else (image_size,) * 2
        if patch_size < 1:
            raise ValueError(f"patch_size has to be at least 1, not {patch_size}")
        if any(side < 1 or side % patch_size for side in size):
            raise ValueError(f"cannot cut image_size={image_size} into patches of {patch_size}")
        self.size, self.patch_size, self.channels = size, patch_size, in_channels
        self.grid = [side // patch_size for side in size]
        self.proj = nn.Conv2d(
            in_channels, dim, kernel_size=(patch_size, patch_size), stride=(patch_size, patch_size)
        )
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.grid[0] * self.grid[1], dim))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def forward(self, images):
        if tuple(images.shape[1:]) != (self.channels, *self.size):
            raise ValueError(f"images of shape {tuple(images.shape[1:])} do not fit")
        columns = F.unfold(images, self.patch_size, stride=self.patch_size).mT
        tokens = F.linear(columns, self.proj.weight.flatten(1), self.proj.bias)
        return torch.cat([self.cls_token.expand(len(images), -1, -1), tokens], 1) + self.pos_embed
