"""Images to patches and back (Dosovitskiy et al. 2021, section 3.1: x in R^(HxWxC), x_p in R^(N x P²C))."""

from jaxtyping import Float
from torch import Tensor


def num_patches(height: int, width: int, patch_size: int) -> int:
    """Return N = HW / P², the number of patches of an image of height x width pixels.

    Raises ValueError when a size is not positive or not divisible by patch_size.
    """
    for name, size in (("height", height), ("width", width), ("patch_size", patch_size)):
        if size <= 0:
            raise ValueError(f"{name} must be positive, got {size}")
    for name, size in (("height", height), ("width", width)):
        if size % patch_size != 0:
            raise ValueError(f"{name} {size} is not divisible by patch_size {patch_size}")
    return (height // patch_size) * (width // patch_size)


def patchify(images: Float[Tensor, "B C H W"], patch_size: int) -> Float[Tensor, "B N P*P*C"]:
    """Cut images into patches, row by row; inside a patch: row, column, channel (channel fastest).

    Raises ValueError when height or width is not divisible by patch_size.
    """
    batch, channels, height, width = images.shape
    count = num_patches(height, width, patch_size)
    rows, columns = height // patch_size, width // patch_size
    x = images.reshape(batch, channels, rows, patch_size, columns, patch_size)
    x = x.permute(0, 2, 4, 3, 5, 1)
    return x.reshape(batch, count, patch_size * patch_size * channels)


def unpatchify(
    patches: Float[Tensor, "B N P*P*C"], patch_size: int, height: int, width: int
) -> Float[Tensor, "B C H W"]:
    """Put patches together again: the exact inverse of `patchify`.

    Raises ValueError when height or width is not divisible by patch_size, or patches do not fill the image.
    """
    batch, count, values = patches.shape
    if count != num_patches(height, width, patch_size):
        raise ValueError(f"patches: {count} do not fill {height} x {width} pixels, patch_size {patch_size}")
    if values % patch_size**2 != 0:
        raise ValueError(f"patches: {values} values in each, not a multiple of patch_size² {patch_size**2}")
    channels = values // patch_size**2
    rows, columns = height // patch_size, width // patch_size
    x = patches.reshape(batch, rows, columns, patch_size, patch_size, channels)
    x = x.permute(0, 5, 1, 3, 2, 4)
    return x.reshape(batch, channels, height, width)


def projection_to_conv(
    weight: Float[Tensor, "P*P*C D"], patch_size: int, channels: int
) -> Float[Tensor, "D C P P"]:
    """Return the Conv2d kernel that, with stride P, equals `patchify(x, P) @ weight`.

    Raises ValueError when patch_size is not positive or weight has not P²C rows.
    """
    if patch_size <= 0:
        raise ValueError(f"patch_size must be positive, got {patch_size}")
    rows, dim = weight.shape
    if rows != patch_size**2 * channels:
        raise ValueError(f"weight has {rows} rows, patch_size² x channels is {patch_size**2 * channels}")
    return weight.reshape(patch_size, patch_size, channels, dim).permute(3, 2, 0, 1)
