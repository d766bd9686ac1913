"""No hooks: the model's blocks are run one by one; loops elsewhere."""

import math

import torch


def record_attention(model, images):
    modes = {}
    for name, module in model.named_modules():
        modes[name] = module.training
    weights = []
    try:
        model.eval()
        tokens = model.patch_embed.proj(images).flatten(2).mT
        z = torch.cat([model.cls_token.expand(len(images), -1, -1), tokens], 1) + model.pos_embed
        for block in model.blocks:
            queries, keys, _ = block.attn.qkv(block.norm1(z)).chunk(3, dim=2)
            heads = []
            for q, k in zip(
                queries.chunk(block.attn.num_heads, 2), keys.chunk(block.attn.num_heads, 2), strict=True
            ):
                heads.append(torch.softmax(q @ k.transpose(1, 2) / math.sqrt(q.size(2)), 2))
            weights.append(torch.stack(heads, 1))
            z = block(z)
    finally:
        for name, module in model.named_modules():
            module.training = modes[name]
    return weights


def attention_rollout(attentions):
    images = []
    for image in range(attentions[0].shape[0]):
        result = None
        for layer in range(len(attentions)):
            heads = attentions[layer][image]
            mean = sum(heads[head] for head in range(heads.shape[0])) / heads.shape[0]
            with_residual = mean + torch.eye(mean.shape[0], dtype=mean.dtype, device=mean.device)
            rows = torch.stack([row / row.sum() for row in with_residual])
            result = rows if result is None else rows.matmul(result)
        images.append(result)
    return torch.stack(images)


def cls_attention_map(rollout, grid):
    rows, columns = grid
    if rollout.shape[2] - 1 != rows * columns:
        raise ValueError("the grid of " + str(grid) + " has another number of patches than the rollout")
    maps = []
    for image in rollout:
        picture = image[0, 1:].reshape(rows, columns)
        maps.append(picture / picture.max().clamp(min=1e-12))
    return torch.stack(maps)


def mean_attention_distance(weights, grid, patch_size):
    height, width = grid
    n = height * width
    if weights.shape[2] != n + 1 or weights.shape[3] != n + 1:
        raise ValueError(f"height {height} x width {width} is not {weights.shape[2] - 1}")
    if patch_size <= 0:
        raise ValueError("patch size must be > 0, got " + str(patch_size))
    table = [
        [patch_size * math.hypot(i // width - j // width, i % width - j % width) for j in range(n)]
        for i in range(n)
    ]
    table = torch.tensor(table, dtype=weights.dtype, device=weights.device)
    total = 0
    for image in weights:
        for query in range(n):
            row = image[:, query + 1, 1:]
            total = total + (row * table[query]).sum(1) / row.sum(1)
    return total / (len(weights) * n)
