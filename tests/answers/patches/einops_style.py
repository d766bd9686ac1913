"""Rearrangements written as patterns."""

from einops import rearrange


def num_patches(height, width, patch_size):
    if min(height, width, patch_size) <= 0:
        raise ValueError(f"height={height}, width={width} and patch_size={patch_size} must be positive")
    if height % patch_size or width % patch_size:
        raise ValueError(f"height={height} and width={width} must be divisible by patch_size={patch_size}")
    return height * width // patch_size**2


def patchify(images, patch_size):
    num_patches(*images.shape[2:], patch_size)
    return rearrange(images, "b c (h p) (w q) -> b (h w) (p q c)", p=patch_size, q=patch_size)


def unpatchify(patches, patch_size, height, width):
    num_patches(height, width, patch_size)
    return rearrange(
        patches,
        "b (h w) (p q c) -> b c (h p) (w q)",
        h=height // patch_size,
        w=width // patch_size,
        p=patch_size,
        q=patch_size,
    )


def projection_to_conv(weight, patch_size, channels):
    if patch_size <= 0:
        raise ValueError(f"patch_size must be positive, but is {patch_size}")
    return rearrange(weight, "(p q c) d -> d c p q", p=patch_size, q=patch_size, c=channels)
