"""Chapter 1: images to patches and back."""

from collections.abc import Callable
from typing import Any

import torch

from autograder.probes import Inputs, gradients, manners
from autograder.reference.patches import num_patches, patchify, projection_to_conv, unpatchify
from autograder.spec import Assignment, Draw, Exercise, Group, Mistake, edited

COUNT, ORDER, INVERSE, CONV = (
    "How many patches?",
    "The order inside a patch",
    "Back to the image",
    "A patch is a convolution window",
)
CONTRACT = "What every answer owes its caller"


def sizes(rows: int, columns: int, largest_patch: int = 9) -> Callable[[Draw], Inputs]:
    """Draw an image of rows x columns patches."""

    def draw_sizes(draw: Draw) -> Inputs:
        patch = draw.integer(2, largest_patch)
        return {"height": rows * patch, "width": columns * patch, "patch_size": patch}

    return draw_sizes


def pictures(
    shape: tuple[int, int], grid: tuple[int, int], patch: int, dtype: torch.dtype = torch.float32
) -> Callable[[Draw], Inputs]:
    """Draw images of shape (batch, channels) with a grid of patches of the given size."""

    def draw_pictures(draw: Draw) -> Inputs:
        return {
            "images": draw.normal(*shape, grid[0] * patch, grid[1] * patch, dtype=dtype),
            "patch_size": patch,
        }

    return draw_pictures


def flat(
    shape: tuple[int, int], grid: tuple[int, int], patch: int, dtype: torch.dtype = torch.float32
) -> Callable[[Draw], Inputs]:
    """Draw patches of images of shape (batch, channels)."""

    def draw_flat(draw: Draw) -> Inputs:
        (batch, channels), (rows, columns) = shape, grid
        patches = draw.normal(batch, rows * columns, patch * patch * channels, dtype=dtype)
        return {"patches": patches, "patch_size": patch, "height": rows * patch, "width": columns * patch}

    return draw_flat


def projection(
    patch: int, channels: int, dim: int, dtype: torch.dtype = torch.float32
) -> Callable[[Draw], Inputs]:
    """Draw a patch projection."""

    def draw_projection(draw: Draw) -> Inputs:
        return {
            "weight": draw.normal(patch * patch * channels, dim, dtype=dtype),
            "patch_size": patch,
            "channels": channels,
        }

    return draw_projection


def but(
    make: Callable[[Draw], Inputs],
    because: str,
    names: tuple[str, ...] = (),
    values: tuple[Any, ...] = (),
    **changed: Any,
) -> Callable[[Draw], Inputs]:
    """Draw inputs that must be refused: those of `make` with some arguments changed.

    Without names any error is right, else a ValueError that mentions one of `names` and one of `values`.
    """

    def draw_bad(draw: Draw) -> Inputs:
        notes = {"_because": because, "_names": names, "_values": values, "_any_error": not names}
        return {**make(draw), **changed, **notes}

    return draw_bad


SIZE_NAMES = (
    "height",
    "width",
    "h",
    "w",
    "image",
    "images",
    "image_size",
    "size",
    "patch_size",
    "patch",
    "p",
)
PATCH_NAMES = ("patch_size", "patch", "p")


def show_patches(inputs: Inputs, expected: Any, yours: Any) -> Any:
    """Draw the first image's patches, expected and yours, as two grids of small pictures."""
    import matplotlib.pyplot as plt

    size = inputs["patch_size"]
    figure, axes = plt.subplots(1, 2, figsize=(7, 2.6), layout="constrained")
    for axis, title, patches in zip(axes, ("expected", "yours"), (expected, yours), strict=True):
        axis.set_title(f"{title}: first patches")
        axis.axis("off")
        if not isinstance(patches, torch.Tensor) or patches.dim() != 3 or patches.shape[-1] % size**2 != 0:
            axis.text(0.5, 0.5, "no picture: wrong shape", ha="center")
            continue
        tiles = (
            patches[0, :6]
            .detach()
            .cpu()
            .float()
            .reshape(-1, size, size, patches.shape[-1] // size**2)[..., :3]
        )
        tiles = (tiles - tiles.min()) / (tiles.max() - tiles.min() + 1e-9)
        strip = torch.nn.functional.pad(tiles, (0, 0, 0, 1, 0, 0), value=1.0).transpose(0, 1).flatten(1, 2)
        axis.imshow(strip if strip.shape[-1] == 3 else strip[..., 0], interpolation="nearest", cmap="viridis")
    return figure


NUM_PATCHES = Exercise(
    name="num_patches",
    points=3,
    reference=num_patches,
    minutes=5,
    difficulty=1,
    importance=3,
    cases=(
        Group(
            "counts the patches of square images",
            1,
            (
                sizes(2, 2),
                sizes(5, 5),
                sizes(14, 14, 32),
                lambda draw: {"height": 224, "width": 224, "patch_size": 16},
            ),
            COUNT,
        ),
        Group(
            "counts the patches of images that are not square",
            1,
            (sizes(2, 7), sizes(5, 3), sizes(1, 4)),
            COUNT,
        ),
        Group(
            "refuses sizes that are not positive or not divisible",
            1,
            (
                but(
                    sizes(2, 3),
                    "a height that is not divisible",
                    SIZE_NAMES,
                    (10, 4),
                    height=10,
                    width=8,
                    patch_size=4,
                ),
                but(
                    sizes(2, 3),
                    "a width that is not divisible",
                    SIZE_NAMES,
                    (10, 4),
                    height=8,
                    width=10,
                    patch_size=4,
                ),
                but(
                    sizes(2, 3),
                    "sizes whose product is divisible, but not each",
                    SIZE_NAMES,
                    (6, 12, 4),
                    height=6,
                    width=12,
                    patch_size=4,
                ),
                but(sizes(2, 3), "a patch_size of zero", PATCH_NAMES, (0,), patch_size=0),
                but(
                    sizes(2, 3),
                    "a negative patch_size",
                    PATCH_NAMES,
                    (-4,),
                    height=8,
                    width=12,
                    patch_size=-4,
                ),
                but(sizes(2, 3), "a height of zero", SIZE_NAMES, (0,), height=0),
                but(sizes(2, 3), "a negative width", SIZE_NAMES, (-8,), height=8, width=-8, patch_size=4),
            ),
            CONTRACT,
        ),
    ),
    mistakes=(
        Mistake(
            "divided by P instead of P²",
            edited(
                num_patches,
                ("(height // patch_size) * (width // patch_size)", "height * width // patch_size"),
            ),
            "One patch covers P rows and P columns, so it holds P² pixels. How many such squares fill H x W pixels?",
        ),
        Mistake(
            "took the image to be square",
            edited(
                num_patches, ("(height // patch_size) * (width // patch_size)", "(height // patch_size) ** 2")
            ),
            "Your count uses the height twice. Count the patches along the height and along the width separately.",
        ),
        Mistake(
            "added instead of multiplied",
            edited(num_patches, (") * (", ") + (")),
            "Rows of patches times patches in a row: a grid has rows x columns cells, not rows + columns.",
        ),
        Mistake(
            "counted the [CLS] token too",
            edited(num_patches, ("return (", "return 1 + (")),
            "N counts patches only. The [CLS] token joins in the next chapter and makes the sequence N + 1 long.",
        ),
        Mistake(
            "returned a float",
            edited(
                num_patches,
                (
                    "(height // patch_size) * (width // patch_size)",
                    "(height / patch_size) * (width / patch_size)",
                ),
            ),
            "A number of patches is a whole number. `/` always gives a float in Python; `//` divides whole numbers.",
        ),
        Mistake(
            "counted only one row of patches",
            edited(num_patches, (" * (width // patch_size)", "")),
            "You counted the patches along the height. Each of those rows holds several patches.",
        ),
        Mistake(
            "rounded the sides up",
            edited(
                num_patches,
                ("size % patch_size != 0", "False"),
                (
                    "(height // patch_size) * (width // patch_size)",
                    "(-(-height // patch_size)) * (-(-width // patch_size))",
                ),
            ),
            "An image whose side is not a multiple of P cannot be cut into whole patches. Refuse it instead of rounding up.",
        ),
        Mistake(
            "dropped the remainder silently",
            edited(num_patches, ("size % patch_size != 0", "False")),
            "For 10 pixels and P = 4 your function answers as if there were 8. Two pixels would vanish without a word: raise a ValueError.",
        ),
        Mistake(
            "checked the product instead of each side",
            edited(num_patches, ("size % patch_size != 0", "height * width % patch_size**2 != 0")),
            "6 x 12 pixels hold 72 = 4.5 x 16 ... and 8 x 2 hold one times 16, but neither can be cut into 4 x 4 squares. Check each side by itself.",
        ),
        Mistake(
            "checked only the height",
            edited(
                num_patches,
                (
                    'for name, size in (("height", height), ("width", width)):\n        if size %',
                    'for name, size in (("height", height),):\n        if size %',
                ),
            ),
            "The height is checked, the width is not. Both have to be divisible by P.",
        ),
        Mistake(
            "let Python's ZeroDivisionError through",
            edited(num_patches, ("if size <= 0", "if size < 0")),
            "A patch_size of 0 ends in a ZeroDivisionError. Check that sizes are positive first and raise a ValueError that says so.",
        ),
        Mistake(
            "accepted negative sizes",
            edited(num_patches, ("if size <= 0", "if size == 0")),
            "Python divides negative numbers happily, so -4 gives a count. Check that every size is positive.",
        ),
        Mistake(
            "wrote an error message without the value",
            edited(
                num_patches,
                (', got {size}"', '"'),
                (
                    "{name} {size} is not divisible by patch_size {patch_size}",
                    "{name} is not divisible by patch_size",
                ),
            ),
            'Your ValueError does not give the value. Someone who reads "patch_size must be positive, got 0" can fix the call at once.',
        ),
        Mistake(
            "used assert instead of ValueError",
            edited(
                num_patches,
                (
                    '            raise ValueError(f"{name} {size} is not divisible by patch_size {patch_size}")',
                    '            raise AssertionError(f"{name} {size} is not divisible by patch_size {patch_size}")',
                ),
            ),
            "`assert` states what cannot happen and disappears under `python -O`. For bad arguments raise a ValueError.",
        ),
    ),
)

PATCHIFY = Exercise(
    name="patchify",
    points=7,
    reference=patchify,
    minutes=25,
    difficulty=3,
    importance=5,
    picture=show_patches,
    cases=(
        Group("cuts a grayscale image into patches, row by row", 1, (pictures((1, 1), (3, 3), 2), pictures((1, 1), (2, 2), 3)), "Rows of patches"),
        Group("puts the channel last inside a patch, for every image of a batch", 1, (pictures((2, 3), (2, 2), 3), pictures((3, 2), (3, 3), 2)), ORDER),
        Group("works for images that are not square", 1, (pictures((2, 3), (2, 4), 3), pictures((1, 2), (5, 2), 2)), "Rows of patches"),
        Group("works for one patch, for patches of one pixel and for other numbers of channels", 1, (pictures((2, 3), (1, 1), 4), pictures((1, 5), (2, 3), 1), pictures((2, 4), (1, 3), 2)), ORDER),
        Group("lets gradients through to the images", 1, (pictures((2, 3), (2, 3), 2, torch.float64),), CONTRACT, gradients),
        Group("keeps dtype and device, leaves its input alone and remembers nothing", 1, (pictures((2, 3), (2, 3), 2, torch.float64), pictures((1, 3), (2, 3), 2)), CONTRACT, manners),
        Group(
            "refuses images that cannot be cut",
            1,
            (
                but(lambda draw: {"images": draw.normal(1, 3, 10, 8), "patch_size": 4}, "a height that is not divisible", SIZE_NAMES, (10, 4)),
                but(lambda draw: {"images": draw.normal(1, 3, 8, 10), "patch_size": 4}, "a width that is not divisible", SIZE_NAMES, (10, 4)),
                but(lambda draw: {"images": draw.normal(1, 4, 8, 2), "patch_size": 4}, "an image narrower than a patch", SIZE_NAMES, (2, 4)),
                but(pictures((1, 3), (2, 2), 2), "a patch_size of zero", PATCH_NAMES, (0,), patch_size=0),
                but(pictures((1, 3), (2, 2), 2), "a negative patch_size", PATCH_NAMES, (-2,), patch_size=-2),
            ),
            CONTRACT,
        ),
    ),
    mistakes=(
        Mistake("flattened channel first", edited(patchify, ("permute(0, 2, 4, 3, 5, 1)", "permute(0, 2, 4, 1, 3, 5)")), "Inside a patch you list all reds, then all greens, then all blues. The contract is row, column, channel: the three values of a pixel stand together."),
        Mistake("swapped rows and columns inside a patch", edited(patchify, ("permute(0, 2, 4, 3, 5, 1)", "permute(0, 2, 4, 5, 3, 1)")), "Your patches are transposed: you walk down the columns of a patch. Its rows come first."),
        Mistake("walked through the patches column by column", edited(patchify, ("permute(0, 2, 4, 3, 5, 1)", "permute(0, 4, 2, 3, 5, 1)")), "Each patch is right, but their order is not: the second patch is the one to the right of the first, not the one below."),
        Mistake("reshaped without moving axes", edited(patchify, ("x = x.permute(0, 2, 4, 3, 5, 1)\n", "\n")), "`reshape` never moves a value in memory, so your \"patches\" are runs of pixels from the same rows. Split each side in two axes, then permute, then reshape."),
        Mistake("moved the channels but not the columns of patches", edited(patchify, ("permute(0, 2, 4, 3, 5, 1)", "permute(0, 2, 3, 4, 5, 1)")), "The axis that counts patches along the width has to come before the axis that counts rows inside a patch. Write the six axes with their names before you permute."),
        Mistake("split a side in the wrong order", edited(patchify, ("rows, patch_size, columns, patch_size)", "patch_size, rows, patch_size, columns)"), ("permute(0, 2, 4, 3, 5, 1)", "permute(0, 3, 5, 2, 4, 1)")), "Splitting H into (P, H/P) takes every (H/P)-th row into one patch. The outer axis is the patch, the inner one the row inside it: (H/P, P)."),
        Mistake("took the image to be square", edited(patchify, ("height // patch_size, width // patch_size\n", "round(count**0.5), round(count**0.5)\n")), "You take the same number of rows and columns of patches. Compute each from its own side."),
        Mistake("swapped height and width", edited(patchify, ("batch, channels, height, width = images.shape", "batch, channels, width, height = images.shape")), "Images are (B, C, H, W): the height comes before the width. With square images nobody notices."),
        Mistake("took the number of channels to be 3", edited(patchify, ("patch_size * patch_size * channels)", "patch_size * patch_size * 3)")), "Read the number of channels from the shape: there are grayscale images and images with more than three channels."),
        Mistake("handled only the first image of a batch", edited(patchify, ("batch, channels, height, width = images.shape", "images = images[:1]\n    batch, channels, height, width = images.shape")), "Only one image comes out. The first axis counts images and has to survive."),
        Mistake("cut the graph with detach", edited(patchify, ("= images.reshape(", "= images.detach().reshape(")), "No gradient reaches the images. `detach`, `.data`, `torch.no_grad` and NumPy all cut the graph; nothing here needs them."),
        Mistake("converted to float32", edited(patchify, ("= images.reshape(", "= images.float().reshape(")), "float64 images come back as float32. Keep the dtype of the input: do not call `.float()` and give new tensors `dtype=images.dtype`."),
        Mistake(
            "filled a new tensor on the CPU",
            edited(patchify, ("return x.reshape(batch, count, patch_size * patch_size * channels)", "import torch\n    out = torch.zeros(batch, count, patch_size * patch_size * channels, dtype=images.dtype)\n    for index in range(count):\n        out[:, index] = x.flatten(1, 2)[:, index].flatten(1)\n    return out")),
            "The result is made on the CPU, whatever the device of the images. Make new tensors with `images.new_zeros(...)` or `device=images.device`.",
        ),
        Mistake("changed the images in place", edited(patchify, ("x = images.reshape(", "images.sub_(0.25).add_(0.25).clamp_(-2, 2)\n    x = images.reshape(")), "Your function changes the images it was given. Methods that end in `_` and assignments into a slice write into the caller's tensor."),
        Mistake("dropped the pixels that do not fit", edited(patchify, ("    count = num_patches(height, width, patch_size)\n    rows", "    height, width = height - height % patch_size, width - width % patch_size\n    images = images[..., :height, :width]\n    count = num_patches(height, width, patch_size)\n    rows")), "Pixels that do not fill a patch vanish without a word. Raise a ValueError that names the size."),
        Mistake("let torch's own error through", edited(patchify, ("count = num_patches(height, width, patch_size)", "count = (height // patch_size) * (width // patch_size)")), "An image of 10 rows with P = 4 ends in a RuntimeError about a view. Check the sizes first and raise a ValueError: `num_patches` already does."),
    ),
)  # fmt: skip

UNPATCHIFY = Exercise(
    name="unpatchify",
    points=6,
    reference=unpatchify,
    minutes=20,
    difficulty=3,
    importance=3,
    cases=(
        Group("puts the patches of a grayscale image back", 1, (flat((1, 1), (3, 3), 2), flat((1, 1), (2, 2), 3)), INVERSE),
        Group("puts the channels back, for every image of a batch", 1, (flat((2, 3), (2, 2), 3), flat((3, 2), (3, 3), 2)), INVERSE),
        Group("works for images that are not square, one patch, and patches of one pixel", 1, (flat((2, 3), (2, 4), 3), flat((1, 2), (5, 2), 2), flat((2, 3), (1, 1), 4), flat((1, 5), (2, 3), 1)), INVERSE),
        Group("lets gradients through to the patches", 1, (flat((2, 3), (2, 3), 2, torch.float64),), CONTRACT, gradients),
        Group("keeps dtype and device, leaves its input alone and remembers nothing", 1, (flat((2, 3), (2, 3), 2, torch.float64), flat((1, 3), (2, 3), 2)), CONTRACT, manners),
        Group(
            "refuses sizes that do not fit",
            1,
            (
                but(flat((1, 3), (2, 2), 4), "a height that is not divisible", SIZE_NAMES, (10, 4), height=10),
                but(flat((1, 3), (2, 2), 4), "a width that is not divisible", SIZE_NAMES, (6, 4), width=6),
                but(flat((1, 3), (2, 2), 2), "a patch_size of zero", PATCH_NAMES, (0,), patch_size=0),
                but(flat((1, 3), (2, 2), 2), "a negative patch_size", PATCH_NAMES, (-2,), patch_size=-2),
                but(flat((2, 3), (2, 3), 2), "too few patches for the image", height=6, width=6),
                but(flat((2, 3), (2, 4), 2), "a number of patches that does not fit", height=8, width=4),
                but(lambda draw: {"patches": draw.normal(2, 4, 10), "patch_size": 2, "height": 4, "width": 4}, "patches whose length is no multiple of P²"),
            ),
            CONTRACT,
        ),
    ),
    mistakes=(
        Mistake("read the channels first", edited(unpatchify, ("patch_size, patch_size, channels)", "channels, patch_size, patch_size)"), ("permute(0, 5, 1, 3, 2, 4)", "permute(0, 3, 1, 4, 2, 5)")), "Inside a patch the channel varies fastest: the last axis splits into (P, P, C), not (C, P, P)."),
        Mistake("swapped rows and columns inside a patch", edited(unpatchify, ("permute(0, 5, 1, 3, 2, 4)", "permute(0, 5, 1, 4, 2, 3)")), "Each patch comes out transposed. Rows of patches belong with rows inside a patch: H splits into (H/P, P)."),
        Mistake("laid the patches out column by column", edited(unpatchify, ("reshape(batch, rows, columns, patch_size, patch_size, channels)", "reshape(batch, columns, rows, patch_size, patch_size, channels).transpose(1, 2)")), "The second patch belongs to the right of the first, not below it."),
        Mistake("reshaped without moving axes", edited(unpatchify, ("x = x.permute(0, 5, 1, 3, 2, 4)\n", "\n")), "`reshape` never moves a value in memory. Undo the three steps of patchify in reverse order: reshape, permute, reshape."),
        Mistake("used the permutation of patchify", edited(unpatchify, ("permute(0, 5, 1, 3, 2, 4)", "permute(0, 2, 4, 3, 5, 1)")), "The permutation that undoes (0, 2, 4, 3, 5, 1) is another one: ask for each output axis where it stands now."),
        Mistake("left the channels last", edited(unpatchify, ("permute(0, 5, 1, 3, 2, 4)", "permute(0, 1, 3, 2, 4, 5)"), ("return x.reshape(batch, channels, height, width)", "return x.reshape(batch, height, width, channels)")), "Images in torch are (B, C, H, W). Your result has the channels at the end."),
        Mistake("swapped height and width", edited(unpatchify, ("rows, columns = height // patch_size, width // patch_size", "rows, columns = width // patch_size, height // patch_size")), "The number of rows of patches comes from the height, the number of columns from the width."),
        Mistake("took the number of channels to be 3", edited(unpatchify, ("channels = values // patch_size**2", "channels = 3")), "C is not given, but it follows: a patch holds P²C values."),
        Mistake("gave back only the first image", edited(unpatchify, ("return x.reshape(batch, channels, height, width)", "return x.reshape(batch, channels, height, width)[:1]")), "Every image of the batch has to come back."),
        Mistake("cut the graph with detach", edited(unpatchify, ("= patches.reshape(", "= patches.detach().reshape(")), "No gradient reaches the patches. Leave `detach`, `.data` and NumPy out."),
        Mistake("converted to float32", edited(unpatchify, ("= patches.reshape(", "= patches.float().reshape(")), "float64 patches come back as float32. Keep the dtype of the input."),
        Mistake("changed the patches in place", edited(unpatchify, ("x = patches.reshape(", "patches.clamp_(-1, 1)\n    x = patches.reshape(")), "Your function writes into the patches it was given."),
        Mistake("let a wrong number of patches change the channels", edited(unpatchify, ("if count != num_patches(height, width, patch_size)", "num_patches(height, width, patch_size)\n    if False"), ("if values % patch_size**2 != 0", "if False"), ("patch_size, channels)\n", "patch_size, -1)\n"), ("return x.reshape(batch, channels, height, width)", "return x.reshape(batch, -1, height, width)")), "A `-1` in reshape takes whatever is left. With too few patches it invents another number of channels. Compare the number of patches with N first."),
        Mistake("cut the size down to whole patches", edited(unpatchify, ("batch, count, values = patches.shape\n", "batch, count, values = patches.shape\n    height, width = height - height % patch_size, width - width % patch_size\n")), "A height that is not divisible by P is a mistake of the caller. Say so with a ValueError."),
        Mistake("checked only the number of patches", edited(unpatchify, ("count != num_patches(height, width, patch_size)", "patch_size == 0 or count != height * width // patch_size**2")), "The number of patches alone does not tell whether each side is a whole number of patches, or whether P is positive. `num_patches` checks both."),
    ),
)  # fmt: skip

PROJECTION_TO_CONV = Exercise(
    name="projection_to_conv",
    points=5,
    reference=projection_to_conv,
    minutes=15,
    difficulty=3,
    importance=4,
    cases=(
        Group("turns each column of a grayscale projection into a P x P kernel", 1, (projection(2, 1, 3), projection(3, 1, 5)), CONV),
        Group("puts the weights of every channel in their place", 1, (projection(3, 2, 4), projection(2, 3, 5), projection(1, 4, 3), projection(2, 2, 2)), CONV),
        Group("lets gradients through to the weight", 1, (projection(2, 3, 4, torch.float64),), CONTRACT, gradients),
        Group("keeps dtype and device, leaves its input alone and remembers nothing", 1, (projection(2, 3, 4, torch.float64), projection(2, 3, 4)), CONTRACT, manners),
        Group(
            "refuses a weight that does not fit",
            1,
            (
                but(projection(2, 3, 4), "a patch_size of zero", PATCH_NAMES, (0,), patch_size=0),
                but(projection(2, 3, 4), "a negative patch_size", PATCH_NAMES, (-2,), patch_size=-2),
                but(projection(2, 3, 4), "a weight with rows for more channels", channels=1),
                but(projection(2, 4, 3), "a weight with rows for another patch_size", patch_size=4, channels=4),
            ),
            CONTRACT,
        ),
    ),
    mistakes=(
        Mistake("read the rows channel first", edited(projection_to_conv, ("weight.reshape(patch_size, patch_size, channels, dim).permute(3, 2, 0, 1)", "weight.reshape(channels, patch_size, patch_size, dim).permute(3, 0, 1, 2)")), "The rows of the weight follow the order inside a patch: row, column, channel. Split them into (P, P, C)."),
        Mistake("transposed the kernel", edited(projection_to_conv, ("permute(3, 2, 0, 1)", "permute(3, 2, 1, 0)")), "Rows and columns of your kernel are swapped. On real images edges would be found in the wrong direction."),
        Mistake("reshaped without moving axes", edited(projection_to_conv, ("weight.reshape(patch_size, patch_size, channels, dim).permute(3, 2, 0, 1)", "weight.reshape(dim, channels, patch_size, patch_size)")), "The shape is right, the values are scrambled: D is the last axis of the weight and the first of the kernel, so axes have to move."),
        Mistake("transposed before splitting the rows wrongly", edited(projection_to_conv, ("weight.reshape(patch_size, patch_size, channels, dim).permute(3, 2, 0, 1)", "weight.T.reshape(dim, channels, patch_size, patch_size)")), "After the transpose each row is one flattened patch, in the order row, column, channel. Split it in that order, then move the channel forward."),
        Mistake("left the channels last", edited(projection_to_conv, ("permute(3, 2, 0, 1)", "permute(3, 0, 1, 2)")), "A Conv2d kernel is (D, C, P, P): the channel comes before rows and columns."),
        Mistake("swapped input and output channels", edited(projection_to_conv, ("permute(3, 2, 0, 1)", "permute(2, 3, 0, 1)")), "A Conv2d kernel is (out, in, P, P). The output channels are the D columns of the weight."),
        Mistake("flipped the kernel", edited(projection_to_conv, ("permute(3, 2, 0, 1)", "permute(3, 2, 0, 1).flip(2, 3)")), "What deep learning calls convolution is a cross-correlation: the kernel is not flipped."),
        Mistake("scaled the kernel by the number of pixels", edited(projection_to_conv, ("permute(3, 2, 0, 1)", "permute(3, 2, 0, 1) / patch_size**2")), "A convolution sums over the window, it does not average. The weights stay as they are."),
        Mistake("cut the graph with detach", edited(projection_to_conv, ("weight.reshape(", "weight.detach().reshape(")), "No gradient reaches the weight. Leave `detach`, `.data` and NumPy out."),
        Mistake("converted to float32", edited(projection_to_conv, ("weight.reshape(", "weight.float().reshape(")), "A float64 weight comes back as float32. Keep the dtype of the input."),
        Mistake("changed the weight in place", edited(projection_to_conv, ("return weight.reshape(", "weight.clamp_(-1, 1)\n    return weight.reshape(")), "Your function writes into the weight it was given."),
        Mistake("let a weight of another size through", edited(projection_to_conv, ("if rows != patch_size**2 * channels", "if False"), ("weight.reshape(patch_size, patch_size, channels, dim)", "weight.reshape(patch_size, patch_size, -1, dim)")), "A `-1` in reshape takes whatever is left, so a weight for three channels passes for one. Compare its rows with P²C first."),
        Mistake("let other errors through for a bad patch_size", edited(projection_to_conv, ("if patch_size <= 0", "if False")), "A patch_size of 0 ends in some other error, and -2 squares to 4. Check that it is positive and raise a ValueError that says so."),
    ),
)  # fmt: skip

ASSIGNMENT = Assignment(
    name="patches",
    title="From images to patches",
    chapter="01_patches",
    exercises=(NUM_PATCHES, PATCHIFY, UNPATCHIFY, PROJECTION_TO_CONV),
)
