"""Modes and hooks in context managers; attention from the output of norm1, after the model has run."""

from contextlib import contextmanager

import torch


@contextmanager
def evaluating(model):
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.train(mode)


@contextmanager
def hooked(modules, hook):
    handles = [module.register_forward_hook(hook) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def record_attention(model, images):
    normed = []
    with torch.inference_mode(), evaluating(model):
        with hooked(
            [block.norm1 for block in model.blocks], lambda module, inputs, output: normed.append(output)
        ):
            model(images)
        weights = []
        for block, tokens in zip(model.blocks, normed, strict=True):
            heads = block.attn.num_heads
            linear = block.attn.qkv
            width = linear.in_features
            both = torch.nn.functional.linear(tokens, linear.weight[: 2 * width], linear.bias[: 2 * width])
            q, k = both.split(width, -1)
            q, k = (part.unflatten(-1, (heads, -1)).movedim(-2, 1) for part in (q, k))
            scores = torch.matmul(q, k.mT) / (width / heads) ** 0.5
            weights.append(scores.softmax(dim=-1))
    return weights


def attention_rollout(attentions):
    rollout = None
    for attention in attentions:
        mixing = attention.mean(dim=1)
        mixing = mixing + torch.diag_embed(torch.ones_like(mixing[..., 0]))
        mixing = torch.bmm(torch.diag_embed(1 / mixing.sum(dim=-1)), mixing)
        rollout = mixing if rollout is None else torch.bmm(mixing, rollout)
    return rollout


def cls_attention_map(rollout, grid):
    batch, tokens, _ = rollout.shape
    if tokens - 1 != grid[0] * grid[1]:
        raise ValueError(f"grid={grid}")
    row = rollout[:, 0, 1:]
    return (row / (row.max(dim=1, keepdim=True).values + 1e-8)).view(batch, *grid)


def mean_attention_distance(weights, grid, patch_size):
    if not patch_size > 0:
        raise ValueError(f"need a positive patch_size, not {patch_size}")
    height, width = grid
    if height * width != weights.shape[-1] - 1:
        raise ValueError(f"grid {height}, {width}")
    y = torch.arange(height, device=weights.device).view(-1, 1).expand(height, width).reshape(-1)
    x = torch.arange(width, device=weights.device).repeat(height)
    squares = (y[:, None] - y[None, :]).square() + (x[:, None] - x[None, :]).square()
    distances = (squares.float().sqrt() * patch_size).to(weights.dtype)
    patches = weights[:, :, 1:, 1:]
    patches = patches / patches.sum(dim=3, keepdim=True)
    return (patches * distances).sum(dim=3).mean(dim=2).mean(dim=0)
