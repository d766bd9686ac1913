"""Plain Python loops over patches and pixels."""

import torch


def num_patches(height, width, patch_size):
    for label, number in dict(height=height, width=width, patch_size=patch_size).items():
        if number < 1:
            raise ValueError("%s is %d, but has to be at least 1" % (label, number))
    if height % patch_size != 0:
        raise ValueError("height %d cannot be divided by %d" % (height, patch_size))
    if width % patch_size != 0:
        raise ValueError("width %d cannot be divided by %d" % (width, patch_size))
    count = 0
    for _ in range(0, height, patch_size):
        for _ in range(0, width, patch_size):
            count += 1
    return count


def patchify(images, patch_size):
    height, width = images.shape[-2], images.shape[-1]
    num_patches(height, width, patch_size)
    tokens = []
    for top in range(0, height, patch_size):
        for left in range(0, width, patch_size):
            tile = images[:, :, top : top + patch_size, left : left + patch_size]
            tokens.append(tile.movedim(1, -1).flatten(start_dim=1))
    return torch.stack(tokens, dim=1)


def unpatchify(patches, patch_size, height, width):
    if patches.shape[1] != num_patches(height, width, patch_size):
        raise ValueError("wrong number of patches")
    channels, rest = divmod(patches.shape[2], patch_size * patch_size)
    if rest:
        raise ValueError("wrong patch length")
    images = torch.zeros(
        patches.shape[0], channels, height, width, dtype=patches.dtype, device=patches.device
    )
    index = 0
    for top in range(0, height, patch_size):
        for left in range(0, width, patch_size):
            tile = patches[:, index].reshape(-1, patch_size, patch_size, channels)
            images[:, :, top : top + patch_size, left : left + patch_size] = tile.permute(0, 3, 1, 2)
            index += 1
    return images


def projection_to_conv(weight, patch_size, channels):
    if patch_size < 1:
        raise ValueError("patch_size %d is too small" % patch_size)
    if len(weight) != patch_size * patch_size * channels:
        raise ValueError("weight has the wrong number of rows")
    kernel = weight.new_empty(weight.shape[1], channels, patch_size, patch_size)
    for row in range(patch_size):
        for column in range(patch_size):
            for channel in range(channels):
                kernel[:, channel, row, column] = weight[(row * patch_size + column) * channels + channel]
    return kernel
