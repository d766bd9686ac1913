"""A convolution with an identity kernel, and pixel_unshuffle."""

import torch
import torch.nn.functional as F


def num_patches(height, width, patch_size):
    if patch_size <= 0 or height <= 0 or width <= 0:
        raise ValueError(f"need positive sizes, got height {height}, width {width}, patch_size {patch_size}")
    if height % patch_size != 0 or width % patch_size != 0:
        raise ValueError(f"height {height} or width {width} not divisible by patch_size {patch_size}")
    return len(range(0, height, patch_size)) * len(range(0, width, patch_size))


def patchify(images, patch_size):
    _, channels, height, width = images.shape
    num_patches(height, width, patch_size)
    length = patch_size * patch_size * channels
    identity = torch.eye(length, dtype=images.dtype, device=images.device)
    kernel = projection_to_conv(identity, patch_size, channels)
    return F.conv2d(images, kernel, stride=patch_size).flatten(2).mT


def unpatchify(patches, patch_size, height, width):
    num_patches(height, width, patch_size)
    batch, _, length = patches.shape
    grid = patches.mT.reshape(batch, length, height // patch_size, width // patch_size)
    channels = length // patch_size**2
    grid = grid.reshape(batch, patch_size**2, channels, *grid.shape[2:]).transpose(1, 2).flatten(1, 2)
    return F.pixel_shuffle(grid, patch_size)


def projection_to_conv(weight, patch_size, channels):
    if patch_size <= 0:
        raise ValueError(f"patch_size: {patch_size}")
    kernel = weight.t().reshape(weight.shape[1], patch_size, patch_size, channels)
    return kernel.moveaxis(3, 1)
