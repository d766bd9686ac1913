"""einops for the positions, tensor functions with `out`, groups sorted by rate."""

from itertools import groupby

import torch
from einops import rearrange
from torch.nn import Linear, Parameter
from torch.nn.functional import interpolate


def replace_head(model, num_classes):
    if num_classes in range(1, 10**9):
        old = model.head.weight
        with torch.device(old.device):
            model.head = Linear(old.shape[1], num_classes, dtype=old.dtype)
        model.head.weight = Parameter(torch.zeros_like(model.head.weight))
        model.head.bias = Parameter(torch.zeros_like(model.head.bias))
        return model
    raise ValueError(f"{num_classes} classes: num_classes has to be at least 1")


def grid(size, patch):
    if patch < 1:
        raise ValueError(f"patch={patch}")
    rows, columns = [divmod(side, patch) for side in (size if hasattr(size, "__len__") else [size] * 2)]
    if rows[1] or columns[1] or rows[0] < 1 or columns[0] < 1:
        raise ValueError(f"size={size}, patch={patch}")
    return rows[0], columns[0]


@torch.no_grad()
def adapt_state_dict(state_dict, patch_size, old_image_size, new_image_size, num_classes):
    (h, w), size = grid(old_image_size, patch_size), grid(new_image_size, patch_size)
    if num_classes < 1:
        raise ValueError(f"classes={num_classes}")
    embeddings = state_dict["pos_embed"]
    if embeddings.shape[1] != h * w + 1:
        raise ValueError(f"a grid of {h} x {w} has no {embeddings.shape[1] - 1} patches")
    table = rearrange(embeddings[:, 1:], "b (h w) d -> b d h w", h=h)
    table = interpolate(table, size, mode="bicubic", align_corners=False)
    positions = torch.cat([embeddings[:, :1], rearrange(table, "b d h w -> b (h w) d")], 1)
    head = embeddings.new_zeros((num_classes, embeddings.shape[2]))
    return state_dict | {"pos_embed": positions, "head.weight": head, "head.bias": head[:, 0].clone()}


@torch.no_grad()
def sgd_momentum_step(params, grads, velocities, lr, momentum=0.9):
    if min(lr, momentum) < 0 or momentum >= 1:
        raise ValueError(f"lr={lr} and momentum={momentum} are not both in range")
    for parameter, gradient, velocity in list(zip(params, grads, velocities, strict=True)):
        if gradient is not None:
            torch.add(gradient, velocity, alpha=momentum, out=velocity)
            torch.sub(parameter, velocity, alpha=lr, out=parameter)


def layerwise_lr_groups(model, base_lr, decay):
    if base_lr <= 0:
        raise ValueError(f"lr must be positive: {base_lr}")
    if not 0 < decay <= 1:
        raise ValueError(f"decay must be above 0 and at most 1: {decay}")
    top = len(model.blocks) + 1

    def height(name):
        parts = name.split(".")
        if parts[0] == "blocks":
            return int(parts[1]) + 1
        return top if parts[0] in {"norm", "head"} else 0

    trainable = [(height(name), each) for name, each in model.named_parameters() if each.requires_grad]
    trainable.sort(key=lambda pair: pair[0])
    return [
        {"lr": base_lr * decay ** (top - level), "params": (each for _, each in list(pairs))}
        for level, pairs in groupby(trainable, key=lambda pair: pair[0])
    ]
