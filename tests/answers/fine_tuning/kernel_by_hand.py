"""Bicubic interpolation as two matrices of weights, foreach operations, one group for each parameter."""

import math
import re
from collections import OrderedDict

import torch
from torch import nn


def replace_head(model, num_classes):
    if not num_classes > 0:
        raise ValueError("num_classes must be > 0, not " + str(num_classes))
    weight = model.head.weight
    head = nn.utils.skip_init(
        nn.Linear, weight.shape[1], num_classes, device=weight.device, dtype=weight.dtype
    )
    head.load_state_dict(
        {"weight": weight.new_zeros(num_classes, weight.shape[1]), "bias": weight.new_zeros(num_classes)}
    )
    model.add_module("head", head)
    return model


def cubic(x, a=-0.75):
    x = abs(x)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def weights(old, new):
    matrix = torch.zeros(new, old, dtype=torch.float64)
    for i in range(new):
        place = (i + 0.5) * old / new - 0.5
        for j in range(math.floor(place) - 1, math.floor(place) + 3):
            matrix[i, min(max(j, 0), old - 1)] += cubic(place - j)
    return matrix


def pair(size, patch_size, name):
    height, width = size if isinstance(size, (tuple, list)) else (size, size)
    for side in (height, width):
        if side < 1 or side % patch_size != 0:
            raise ValueError(f"{name}: {side} pixels, patch_size {patch_size}")
    return height // patch_size, width // patch_size


def adapt_state_dict(state_dict, patch_size, old_image_size, new_image_size, num_classes):
    if num_classes < 1:
        raise ValueError(f"{num_classes} is no number of classes; num_classes must be positive")
    if patch_size < 1:
        raise ValueError(f"a patch_size of {patch_size}")
    old = pair(old_image_size, patch_size, "old_image_size")
    new = pair(new_image_size, patch_size, "new_image_size")
    adapted = OrderedDict((name, value.clone()) for name, value in state_dict.items())
    positions = adapted["pos_embed"]
    if positions.size(1) - 1 != math.prod(old):
        raise ValueError(f"old_image_size {old_image_size} makes {math.prod(old)} patches")
    down, across = weights(old[0], new[0]).to(positions), weights(old[1], new[1]).to(positions)
    table = positions[0, 1:].unflatten(0, old)
    table = torch.einsum("ih,jw,hwd->ijd", down, across, table).flatten(0, 1)
    adapted["pos_embed"] = torch.cat([positions[0, :1], table])[None]
    dim = positions.size(-1)
    adapted["head.weight"], adapted["head.bias"] = positions.new_zeros(dim + 1, num_classes).split([dim, 1])
    adapted["head.weight"], adapted["head.bias"] = adapted["head.weight"].T, adapted["head.bias"][0]
    return adapted


def sgd_momentum_step(params, grads, velocities, lr, momentum=0.9):
    if not lr >= 0:
        raise ValueError(f"learning_rate {lr} is negative")
    if not (momentum >= 0 and momentum < 1):
        raise ValueError(f"momentum {momentum} is outside [0, 1)")
    chosen = [each for each in zip(params, grads, velocities, strict=True) if each[1] is not None]
    if not chosen:
        return
    p, g, v = (list(column) for column in zip(*chosen, strict=True))
    with torch.no_grad():
        torch._foreach_mul_(v, momentum)
        torch._foreach_add_(v, g)
        torch._foreach_add_(p, v, alpha=-lr)


def layerwise_lr_groups(model, base_lr, decay):
    if base_lr <= 0 or decay <= 0 or decay > 1:
        raise ValueError(f"base_lr={base_lr}, decay={decay}")
    depth = len(model.blocks)
    groups = []
    for name, parameter in model.named_parameters():
        block = re.match(r"blocks\.(\d+)\.", name)
        if block:
            exponent = depth - int(block[1])
        elif re.match(r"(head|norm)\.", name):
            exponent = 0
        else:
            exponent = depth + 1
        if parameter.requires_grad:
            groups.append({"params": [parameter], "lr": base_lr * math.pow(decay, exponent), "name": name})
    return groups
