"""Positions by grid_sample, data pointers for the step, groups from a table of layers by identity."""

import copy

import torch
import torch.nn.functional as F


def replace_head(model, num_classes):
    if num_classes < 1:
        raise ValueError(f"cannot make {num_classes} classes")
    head = copy.deepcopy(model.head)
    zeros = torch.zeros_like(head.weight[:1].detach())
    head.weight = torch.nn.Parameter(zeros.repeat(num_classes, 1))
    head.bias = torch.nn.Parameter(zeros[0, :1].repeat(num_classes))
    head.out_features = num_classes
    model.head = head
    return model


def adapt_state_dict(state_dict, patch_size, old_image_size, new_image_size, num_classes):
    if num_classes < 1:
        raise ValueError(f"cannot make {num_classes} classes")
    if patch_size < 1:
        raise ValueError(f"patch size {patch_size}")
    sides = []
    for size in (old_image_size, new_image_size):
        sides += [size, size] if isinstance(size, int) else list(size)
    for side in sides:
        if side < 1 or side % patch_size:
            raise ValueError(f"size {side} is not a multiple of {patch_size}")
    oh, ow, nh, nw = (side // patch_size for side in sides)
    new = copy.deepcopy(state_dict)
    old = new["pos_embed"]
    if old.shape[1] != oh * ow + 1:
        raise ValueError(f"expected {oh * ow + 1} embeddings in pos_embed, found {old.shape[1]}")
    y = (torch.arange(nh, dtype=old.dtype, device=old.device) * 2 + 1) / nh - 1
    x = (torch.arange(nw, dtype=old.dtype, device=old.device) * 2 + 1) / nw - 1
    places = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1)
    image = old[0, 1:].T.reshape(1, -1, oh, ow)
    image = F.grid_sample(image, places[None], mode="bicubic", padding_mode="border", align_corners=False)
    new["pos_embed"] = torch.hstack([old[:, :1], image.flatten(2).mT])
    new["head.weight"] = torch.zeros_like(old[0, :1]).repeat(num_classes, 1)
    new["head.bias"] = torch.zeros_like(old[0, 0, :1]).repeat(num_classes)
    return new


def sgd_momentum_step(params, grads, velocities, lr, momentum=0.9):
    if lr < 0:
        raise ValueError(f"lr={lr} < 0")
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum={momentum}")
    if len({len(params), len(grads), len(velocities)}) > 1:
        raise IndexError("lists of different lengths")
    for p, g, v in zip(params, grads, velocities, strict=False):
        if g is None:
            continue
        v.data.copy_(momentum * v.data + g.data)
        p.data.copy_(p.data - lr * v.data)


def layerwise_lr_groups(model, base_lr, decay):
    if not base_lr > 0:
        raise ValueError(f"base_lr={base_lr}")
    if not 0 < decay <= 1:
        raise ValueError(f"decay={decay}")
    depth = len(model.blocks)
    exponents = dict.fromkeys(model.parameters(), depth + 1)
    for number, block in enumerate(model.blocks):
        exponents.update(dict.fromkeys(block.parameters(), depth - number))
    exponents.update(dict.fromkeys(model.norm.parameters(), 0))
    exponents.update(dict.fromkeys(model.head.parameters(), 0))
    by_exponent = {}
    for parameter, exponent in exponents.items():
        if parameter.requires_grad:
            by_exponent.setdefault(exponent, []).append(parameter)
    return [dict(params=found, lr=base_lr * decay**exponent) for exponent, found in by_exponent.items()]
