"""As one would write it after reading the chapter: plain loops and torch's layers."""

import torch
import torch.nn as nn
import torch.nn.functional as F


def replace_head(model, num_classes):
    if num_classes <= 0:
        raise ValueError(f"num_classes={num_classes}")
    head = nn.Linear(model.head.in_features, num_classes).to(model.head.weight)
    with torch.no_grad():
        head.weight.zero_()
        head.bias.zero_()
    model.head = head
    return model


def adapt_state_dict(state_dict, patch_size, old_image_size, new_image_size, num_classes):
    if num_classes <= 0:
        raise ValueError(f"num_classes={num_classes}")
    if patch_size <= 0:
        raise ValueError(f"patch_size={patch_size}")
    grids = []
    for size in (old_image_size, new_image_size):
        height, width = (size, size) if isinstance(size, int) else size
        if height <= 0 or width <= 0 or height % patch_size or width % patch_size:
            raise ValueError(f"image_size {size} and patch_size {patch_size}")
        grids.append((height // patch_size, width // patch_size))
    (h, w), new_grid = grids
    dim = state_dict["pos_embed"].shape[2]
    result = {}
    for name, tensor in state_dict.items():
        if name == "pos_embed":
            if tensor.shape[1] != 1 + h * w:
                raise ValueError(
                    f"pos_embed has {tensor.shape[1]} positions, old_image_size {old_image_size}"
                )
            cls = tensor[:, 0:1, :]
            grid = tensor[:, 1:, :].reshape(1, h, w, dim).permute(0, 3, 1, 2)
            grid = F.interpolate(grid, size=new_grid, mode="bicubic")
            tensor = torch.cat((cls, grid.permute(0, 2, 3, 1).reshape(1, -1, dim)), dim=1)
        if name not in ("head.weight", "head.bias"):
            result[name] = tensor
    like = state_dict["pos_embed"]
    result["head.weight"] = torch.zeros(num_classes, dim, dtype=like.dtype, device=like.device)
    result["head.bias"] = torch.zeros(num_classes, dtype=like.dtype, device=like.device)
    return result


def sgd_momentum_step(params, grads, velocities, lr, momentum=0.9):
    if lr < 0:
        raise ValueError(f"lr is {lr}")
    if momentum < 0 or momentum >= 1:
        raise ValueError(f"momentum is {momentum}")
    assert len(params) == len(grads) == len(velocities)
    with torch.no_grad():
        for i in range(len(params)):
            if grads[i] is None:
                continue
            velocities[i] *= momentum
            velocities[i] += grads[i]
            params[i] -= lr * velocities[i]


def layerwise_lr_groups(model, base_lr, decay):
    if base_lr <= 0:
        raise ValueError(f"base_lr {base_lr}")
    if decay <= 0 or decay > 1:
        raise ValueError(f"decay {decay}")
    layers = [[*model.head.parameters(), *model.norm.parameters()]]
    for block in reversed(list(model.blocks)):
        layers.append(list(block.parameters()))
    layers.append([*model.patch_embed.parameters(), model.cls_token, model.pos_embed])
    groups = []
    lr = base_lr
    for layer in layers:
        trainable = [parameter for parameter in layer if parameter.requires_grad]
        if trainable:
            groups.append({"params": trainable, "lr": lr})
        lr = lr * decay
    return groups
