"""Views by `unfold`, and einsum with one-hot axes."""

import math

import torch


def _require(ok, message):
    if not ok:
        raise ValueError(message)


def num_patches(height: int, width: int, patch_size: int) -> int:
    _require(patch_size > 0, f"patch size must be > 0, is {patch_size}")
    _require(height > 0, f"height must be > 0, is {height}")
    _require(width > 0, f"width must be > 0, is {width}")
    _require(
        math.gcd(height, patch_size) == patch_size,
        f"height={height} is no multiple of patch size {patch_size}",
    )
    _require(
        math.gcd(width, patch_size) == patch_size, f"width={width} is no multiple of patch size {patch_size}"
    )
    return math.prod(side // patch_size for side in (height, width))


def patchify(images: torch.Tensor, patch_size: int) -> torch.Tensor:
    num_patches(*images.shape[-2:], patch_size)
    tiles = images.unfold(2, patch_size, patch_size).unfold(3, patch_size, patch_size)
    return torch.einsum("bcrspq->brspqc", tiles).flatten(3, 5).flatten(1, 2)


def unpatchify(patches: torch.Tensor, patch_size: int, height: int, width: int) -> torch.Tensor:
    count = num_patches(height, width, patch_size)
    _require(patches.shape[1] == count, "wrong number of patches")
    rows = patches.reshape(
        len(patches), height // patch_size, width // patch_size, patch_size, patch_size, -1
    )
    bands = [torch.cat(list(band.unbind(1)), dim=2) for band in rows.unbind(1)]  # one row of patches each
    return torch.cat(bands, dim=1).permute(0, 3, 1, 2)


def projection_to_conv(weight: torch.Tensor, patch_size: int, channels: int) -> torch.Tensor:
    _require(patch_size > 0, f"patch_size={patch_size} must be > 0")
    blocks = weight.view(patch_size, patch_size, channels, weight.shape[-1])
    return torch.einsum("pqcd->dcpq", blocks).contiguous()
