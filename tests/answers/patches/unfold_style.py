"""torch's own sliding windows."""

import torch
import torch.nn.functional as F


def num_patches(height, width, patch_size):
    if patch_size <= 0:
        raise ValueError(f"patch_size must be greater than zero (got {patch_size})")
    rows, rest_h = divmod(height, patch_size)
    cols, rest_w = divmod(width, patch_size)
    if rest_h or rest_w or rows <= 0 or cols <= 0:
        raise ValueError(
            f"image of size {height}x{width} cannot be cut into patches of patch_size {patch_size}"
        )
    return rows * cols


def patchify(images, patch_size):
    num_patches(images.size(2), images.size(3), patch_size)
    columns = F.unfold(images, kernel_size=patch_size, stride=patch_size)  # (B, C P P, N), channel slowest
    batch, _, count = columns.shape
    return columns.view(batch, images.size(1), patch_size**2, count).permute(0, 3, 2, 1).flatten(2)


def unpatchify(patches, patch_size, height, width):
    num_patches(height, width, patch_size)
    batch, count, length = patches.shape
    if length % patch_size**2:
        raise ValueError(f"{length} values do not make a patch")
    columns = patches.unflatten(2, (patch_size**2, -1)).permute(0, 3, 2, 1).reshape(batch, length, count)
    return F.fold(columns, (height, width), kernel_size=patch_size, stride=patch_size)


def projection_to_conv(weight, patch_size, channels):
    if patch_size <= 0:
        raise ValueError(f"patch_size must be greater than zero (got {patch_size})")
    dim = weight.size(1)
    return (
        torch.transpose(weight, 0, 1)
        .reshape(dim, patch_size * patch_size, channels)
        .mT.reshape(dim, channels, patch_size, patch_size)
    )
