"""einops, and a projection written as a loop over patches."""

import torch
from einops import rearrange, repeat
from torch import nn


def embed_patches(patches, weight, bias=None):
    tokens = torch.stack([patch.matmul(weight) for patch in patches.unbind(dim=1)], dim=1)
    if bias is not None:
        tokens = tokens + bias[None, None, :]
    return tokens


def prepend_cls_token(tokens, cls_token):
    return torch.cat([repeat(cls_token, "1 1 d -> b 1 d", b=tokens.shape[0]), tokens], dim=1)


def add_position_embedding(tokens, position_embedding):
    if tokens.shape[1:] != position_embedding.shape[1:]:
        raise RuntimeError("tokens and position_embedding differ in length")
    return torch.stack([image + position_embedding[0] for image in tokens])


class PatchEmbedding(nn.Module):
    def __init__(self, image_size, patch_size, in_channels, dim):
        super().__init__()
        try:
            self.height, self.width = image_size
        except TypeError:
            self.height = self.width = image_size
        if patch_size <= 0:
            raise ValueError(f"patch_size={patch_size}")
        if self.height <= 0 or self.width <= 0:
            raise ValueError(f"height={self.height} width={self.width}")
        if self.height % patch_size != 0 or self.width % patch_size != 0:
            raise ValueError(f"height={self.height} or width={self.width} is not divisible by {patch_size}")
        patches = self.height // patch_size * (self.width // patch_size)
        self.patch_size = patch_size
        self.proj = nn.Conv2d(in_channels, dim, patch_size, stride=patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, patches + 1, dim))

    def forward(self, images):
        assert images.shape[-2:] == (self.height, self.width), "another image size"
        p = self.patch_size
        patches = rearrange(images, "b c (h p) (w q) -> b (h w) (p q c)", p=p, q=p)
        weight = rearrange(self.proj.weight, "d c p q -> (p q c) d")
        tokens = embed_patches(patches, weight, self.proj.bias)
        return add_position_embedding(prepend_cls_token(tokens, self.cls_token), self.pos_embed)
