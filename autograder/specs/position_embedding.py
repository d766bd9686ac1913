"""Chapter 3: sines and cosines, two dimensions, another image size, and which places look alike."""

from collections.abc import Callable
from typing import Any

import torch

from autograder.probes import Inputs, Outputs, arguments, gradients, manners, mapped
from autograder.reference.position_embedding import (
    interpolate_position_embedding,
    learned_2d,
    position_similarity,
    sinusoidal_1d,
    sinusoidal_2d,
)
from autograder.spec import Assignment, Draw, Exercise, Group, Mistake, edited

SINES, TWO, RESIZE, ALIKE = (
    "Sines and cosines of many frequencies",
    "A row and a column",
    "Positions for another image size",
    "Which places look alike?",
)
CONTRACT = "What every answer owes its caller"
Make = Callable[[Draw], Inputs]


def line(positions: tuple[int, int], pairs: tuple[int, int], with_base: bool = False) -> Make:
    """Draw the size of a table: positions and pairs of entries from ranges, and a base where one is wanted."""

    def draw_line(draw: Draw) -> Inputs:
        inputs = {"num_positions": draw.integer(*positions), "dim": 2 * draw.integer(*pairs)}
        return {**inputs, "base": float(draw.integer(20, 500))} if with_base else inputs

    return draw_line


def plane(height: int, width: int, pairs: tuple[int, int], with_base: bool = False) -> Make:
    """Draw the width of a table for a grid: pairs of entries in each half from a range."""

    def draw_plane(draw: Draw) -> Inputs:
        inputs = {"grid_height": height, "grid_width": width, "dim": 4 * draw.integer(*pairs)}
        return {**inputs, "base": float(draw.integer(20, 500))} if with_base else inputs

    return draw_plane


def halves(height: int, width: int, half: int, dtype: torch.dtype = torch.float32) -> Make:
    """Draw embeddings of rows and of columns."""
    return lambda draw: {
        "row_embed": draw.normal(height, half, dtype=dtype),
        "col_embed": draw.normal(width, half, dtype=dtype),
    }


def resize(old: tuple[int, int], new: tuple[int, int], dim: int, dtype: torch.dtype = torch.float32) -> Make:
    """Draw embeddings for the old grid."""
    return lambda draw: {
        "pos_embed": draw.normal(1, 1 + old[0] * old[1], dim, dtype=dtype),
        "old_grid": old,
        "new_grid": new,
    }


def places(grid: tuple[int, int], dim: int, std: float = 1.0, dtype: torch.dtype = torch.float32) -> Make:
    """Draw embeddings for a grid."""
    return lambda draw: {
        "pos_embed": draw.normal(1, 1 + grid[0] * grid[1], dim, std=std, dtype=dtype),
        "grid": grid,
    }


def but(
    make: Make, because: str, names: tuple[str, ...] = (), values: tuple[Any, ...] = (), **changed: Any
) -> Make:
    """Draw inputs that must be refused: those of `make` with some arguments changed.

    Without names any error is right, else a ValueError that mentions one of `names` and one of `values`.
    """
    notes = {"_because": because, "_names": names, "_values": values, "_any_error": not names}
    return lambda draw: {**make(draw), **changed, **notes}


DIM_NAMES = (
    "dim", "dims", "d", "dimension", "dimensions", "width", "embed_dim", "embedding_dim", "d_model", "size", "half", "halves",
)  # fmt: skip
GRID_NAMES = (
    "grid", "grids", "old_grid", "pos_embed", "position", "positions", "pos", "embedding", "embeddings", "patches", "patch",
    "tokens", "rows", "entries", "length", "n", "h", "w", "height", "width", "old_height", "old_width", "old_h", "old_w",
    "num_patches", "sequence", "size",
)  # fmt: skip


def tables(answer: Callable[..., Any], inputs: Inputs) -> Outputs:
    """A table, a second one after the first was overwritten, and one while torch's default dtype is float64.

    The last may be computed in float32: the contract names its dtype, not its last digits.
    """
    given = arguments(inputs)
    first = answer(*given.values())
    kept = mapped(torch.clone, first)
    if isinstance(first, torch.Tensor) and not first.requires_grad and first.is_contiguous():
        first.fill_(7)
    second = answer(*given.values())
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        wide = answer(**given)
    finally:
        torch.set_default_dtype(usual)
    return {
        "the result, arguments by position": kept,
        "the result of a second call": second,
        "the result when torch's default dtype is float64": wide[:0],
        "its values": wide.float(),
    }


def show_table(inputs: Inputs, expected: Any, yours: Any) -> Any:
    """Draw the tables, one row a position, expected and yours."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(7, 2.6), layout="constrained")
    for axis, title, table in zip(axes, ("expected", "yours"), (expected, yours), strict=True):
        axis.set_title(title)
        if not isinstance(table, torch.Tensor) or table.dim() != 2 or table.is_meta or table.is_complex():
            axis.axis("off")
            axis.text(0.5, 0.5, "no picture: wrong shape", ha="center")
            continue
        axis.imshow(
            table.detach().cpu().float(), aspect="auto", interpolation="nearest", cmap="RdBu", vmin=-1, vmax=1
        )
        axis.set_xlabel("entry")
        axis.set_ylabel("position")
    return figure


def show_positions(inputs: Inputs, expected: Any, yours: Any) -> Any:
    """Draw entry 0 of every patch's embedding as a picture: before, expected and yours."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(7, 2.6), layout="constrained")
    titles, grids = (
        ("before", "expected", "yours"),
        (inputs["old_grid"], inputs["new_grid"], inputs["new_grid"]),
    )
    for axis, title, grid, table in zip(
        axes, titles, grids, (inputs["pos_embed"], expected, yours), strict=True
    ):
        axis.set_title(f"{title}: entry 0")
        axis.axis("off")
        count = 1 + grid[0] * grid[1]
        if (
            not isinstance(table, torch.Tensor)
            or table.dim() != 3
            or table.shape[:2] != (1, count)
            or table.is_meta
        ):
            axis.text(0.5, 0.5, "no picture: wrong shape", ha="center")
            continue
        image = table[0, 1:, 0].detach().cpu().float().reshape(tuple(grid))
        axis.imshow(image, interpolation="nearest", cmap="viridis")
    return figure


def show_similarity(inputs: Inputs, expected: Any, yours: Any) -> Any:
    """Draw how similar every patch is to the one in the middle, expected and yours."""
    import matplotlib.pyplot as plt

    height, width = inputs["grid"]
    figure, axes = plt.subplots(1, 2, figsize=(7, 2.6), layout="constrained")
    for axis, title, table in zip(axes, ("expected", "yours"), (expected, yours), strict=True):
        axis.set_title(f"{title}: similarity to patch ({height // 2}, {width // 2})")
        axis.axis("off")
        if (
            not isinstance(table, torch.Tensor)
            or table.shape != (height, width, height, width)
            or table.is_meta
        ):
            axis.text(0.5, 0.5, "no picture: wrong shape", ha="center")
            continue
        image = table[height // 2, width // 2].detach().cpu().float()
        axis.imshow(image, interpolation="nearest", cmap="RdBu", vmin=-1, vmax=1)
    return figure


SINUSOIDAL_1D = Exercise(
    name="sinusoidal_1d",
    points=5,
    reference=sinusoidal_1d,
    minutes=20,
    difficulty=2,
    importance=4,
    picture=show_table,
    cases=(
        Group("starts every row with sin p and cos p", 1, (line((5, 12), (1, 1)), line((1, 1), (1, 1))), SINES),
        Group(
            "puts pairs of lower and lower frequency side by side",
            1,
            (line((6, 12), (2, 3)), line((13, 24), (4, 5)), line((1, 3), (6, 9)), line((25, 40), (11, 16))),
            SINES,
        ),
        Group("follows another base", 1, (line((6, 12), (2, 4), True), line((13, 24), (5, 8), True)), SINES),
        Group(
            "has torch's default dtype and remembers nothing",
            1,
            (line((6, 12), (3, 5)), line((6, 12), (3, 5), True)),
            CONTRACT,
            tables,
        ),
        Group(
            "refuses an odd dim",
            1,
            (
                but(line((4, 9), (2, 3)), "an odd dim", DIM_NAMES, (5,), dim=5),
                but(line((4, 9), (2, 3)), "a dim of 1", DIM_NAMES, (1,), dim=1),
                but(line((4, 9), (2, 3)), "an odd dim", DIM_NAMES, (7,), dim=7, num_positions=8),
            ),
            CONTRACT,
        ),
    ),
    mistakes=(
        Mistake(
            "swapped sine and cosine",
            edited(sinusoidal_1d, ("[angle.sin(), angle.cos()]", "[angle.cos(), angle.sin()]")),
            "Even entries hold the sine, odd entries the cosine. Position 0 is then 0, 1, 0, 1, ...",
        ),
        Mistake(
            "joined all sines and all cosines",
            edited(sinusoidal_1d, ("torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)",
                                   "torch.cat([angle.sin(), angle.cos()], dim=-1)")),
            "Your first half is all sines, your second half all cosines. Here each sine stands beside the cosine of the "
            "same angle: entries 2i and 2i+1.",
        ),
        Mistake(
            "used i/D instead of 2i/D as the exponent",
            edited(sinusoidal_1d, ("torch.arange(0, dim, 2, dtype", "torch.arange(dim // 2, dtype")),
            "Your frequencies fall too slowly. Pair i has the exponent 2i/D: the last pair is near 1, not near 1/2.",
        ),
        Mistake(
            "stretched the exponents to reach 1",
            edited(sinusoidal_1d, ("default_dtype()) / dim", "default_dtype()) / max(dim - 2, 1)")),
            "Divide 2i by D itself. Some later models divide by D - 2, so that the last exponent is exactly 1.",
        ),
        Mistake(
            "gave the cosine a frequency of its own",
            edited(sinusoidal_1d, ("torch.arange(0, dim, 2, dtype=torch.get_default_dtype()) / dim",
                                   "torch.arange(dim, dtype=torch.get_default_dtype()) / dim"),
                   ("[angle.sin(), angle.cos()]", "[angle[:, 0::2].sin(), angle[:, 1::2].cos()]")),
            "Sine and cosine of a pair share one angle. Entry 2i+1 has the exponent 2i/D too, not (2i+1)/D.",
        ),
        Mistake(
            "multiplied by the power instead of dividing",
            edited(sinusoidal_1d, ("/ base**exponent", "* base**exponent")),
            "Your angles grow from pair to pair. Divide p by base^(2i/D), so that later pairs turn more slowly.",
        ),
        Mistake(
            "forgot to divide the exponent by D",
            edited(sinusoidal_1d, ("default_dtype()) / dim", "default_dtype())")),
            "With the exponent 2i the second pair already turns 10,000² times slower. Divide by D.",
        ),
        Mistake(
            "made all pairs turn equally fast",
            edited(sinusoidal_1d, (" / base**exponent", " / base**(0 * exponent)")),
            "All your pairs hold the same angle. Pair i turns base^(2i/D) times slower than pair 0.",
        ),
        Mistake(
            "ignored base",
            edited(sinusoidal_1d, ("/ base**exponent", "/ 10000.0**exponent")),
            "`base` is an argument. 10,000 is only its default.",
        ),
        Mistake(
            "gave base no default",
            edited(sinusoidal_1d).replace("base=10000.0", "base"),
            "`base` may be left out. Write `base=10000.0` in the signature.",
        ),
        Mistake(
            "counted positions from 1",
            edited(sinusoidal_1d, ("angle = position[:, None]", "angle = (position + 1)[:, None]")),
            "The first position is 0, so the first row is 0, 1, 0, 1, ...",
        ),
        Mistake(
            "scaled positions to the range from 0 to 1",
            edited(sinusoidal_1d, ("angle = position[:, None]", "angle = (position / num_positions)[:, None]")),
            "The angle of position p is p / base^(2i/D), whatever the number of positions is.",
        ),
        Mistake(
            "multiplied the angle by 2π",
            edited(sinusoidal_1d, ("angle = position[:, None]", "angle = 2 * torch.pi * position[:, None]")),
            "The angle is in radians as it stands: p / base^(2i/D), without 2π.",
        ),
        Mistake(
            "used the sine twice",
            edited(sinusoidal_1d, ("angle.cos()", "angle.sin()")),
            "Both entries of a pair hold the sine. The second one is the cosine.",
        ),
        Mistake(
            "returned float32 always",
            edited(sinusoidal_1d, ("torch.get_default_dtype()", "torch.float32")),
            "The table has torch's default dtype, which people change with `torch.set_default_dtype`. "
            "`torch.get_default_dtype()` tells it.",
        ),
        Mistake(
            "returned float64 always",
            edited(sinusoidal_1d, ("torch.get_default_dtype()", "torch.float64")),
            "The table has torch's default dtype, mostly float32. NumPy arrays come over as float64: convert at the end.",
        ),
        Mistake(
            "remembered the table",
            "import functools\n" + edited(sinusoidal_1d).replace("def ", "@functools.lru_cache\ndef ", 1),
            "A second call returns the same tensor again. Whoever changes the first result changes the second one too.",
        ),
        Mistake(
            "accepted an odd dim",
            edited(sinusoidal_1d, ("if dim % 2 != 0", "if False"), (".flatten(1)", ".flatten(1)[:, :dim]")),
            "With an odd D the last sine has no cosine. Refuse it with a ValueError that names dim and its value.",
        ),
        Mistake(
            "let torch's own error through",
            edited(sinusoidal_1d, ("if dim % 2 != 0", "if False"), ("angle.cos()", "angle.cos()[:, : dim // 2]")),
            "An odd D ends in an error about sizes that do not match. Check it first and raise a ValueError that says why.",
        ),
        Mistake(
            "used assert instead of ValueError",
            edited(sinusoidal_1d, ("raise ValueError", "raise AssertionError")),
            "`assert` states what cannot happen and disappears under `python -O`. For a bad argument raise a ValueError.",
        ),
        Mistake(
            "wrote an error message without the value",
            edited(sinusoidal_1d, (", got {dim}", "")),
            'Your ValueError does not give the value. "dim must be even, got 7" tells at once what to change.',
        ),
    ),
)  # fmt: skip

SINUSOIDAL_2D = Exercise(
    name="sinusoidal_2d",
    points=5,
    reference=sinusoidal_2d,
    minutes=20,
    difficulty=2,
    importance=3,
    picture=show_table,
    cases=(
        Group(
            "encodes the row in the first half and the column in the second, on a square grid",
            1,
            (plane(3, 3, (1, 1)), plane(4, 4, (2, 4))),
            TWO,
        ),
        Group(
            "works for grids that are not square",
            1,
            (plane(2, 5, (1, 2)), plane(6, 3, (2, 4)), plane(1, 4, (1, 3)), plane(5, 1, (1, 3))),
            TWO,
        ),
        Group("follows another base", 1, (plane(3, 4, (2, 4), True), plane(5, 2, (3, 5), True)), TWO),
        Group(
            "has torch's default dtype and remembers nothing",
            1,
            (plane(3, 4, (2, 3)), plane(3, 2, (2, 3), True)),
            CONTRACT,
            tables,
        ),
        Group(
            "refuses a dim that does not split into two halves of pairs",
            1,
            (
                but(plane(2, 3, (1, 2)), "an odd dim", DIM_NAMES, (5,), dim=5),
                but(plane(2, 3, (1, 2)), "an odd dim", DIM_NAMES, (9,), dim=9),
                but(plane(2, 3, (1, 2)), "a dim whose half is odd", DIM_NAMES, (6, 3), dim=6),
                but(plane(2, 3, (1, 2)), "a dim whose half is odd", DIM_NAMES, (10, 5), dim=10),
            ),
            CONTRACT,
        ),
    ),
    mistakes=(
        Mistake(
            "put the column first",
            edited(sinusoidal_2d, ("torch.cat([row, column]", "torch.cat([column, row]")),
            "Your first half changes along a row of patches, so it encodes the column. The row comes first.",
        ),
        Mistake(
            "walked through the grid column by column",
            edited(sinusoidal_2d, ("return torch.cat([row, column], dim=1)",
                                   "table = torch.cat([row, column], dim=1).unflatten(0, (grid_height, grid_width))\n"
                                   "    return table.transpose(0, 1).flatten(0, 1)")),
            "The second row of the table belongs to the patch on the right, (0, 1), not to the one below.",
        ),
        Mistake(
            "swapped the height and the width of the grid",
            edited(sinusoidal_2d, ("sinusoidal_1d(grid_height, dim // 2, base).repeat_interleave(grid_width, dim=0)",
                                   "sinusoidal_1d(grid_width, dim // 2, base).repeat_interleave(grid_height, dim=0)"),
                   ("sinusoidal_1d(grid_width, dim // 2, base).repeat(grid_height, 1)",
                    "sinusoidal_1d(grid_height, dim // 2, base).repeat(grid_width, 1)")),
            "There are grid_height different rows, each with grid_width patches. On square grids nobody notices.",
        ),
        Mistake(
            "took the grid to be square",
            edited(sinusoidal_2d, ("sinusoidal_1d(grid_width, dim // 2, base).repeat(grid_height, 1)",
                                   "sinusoidal_1d(grid_height, dim // 2, base).repeat(grid_width, 1)")),
            "The height counts the rows, the width counts the columns. You use the height for both.",
        ),
        Mistake(
            "added the two encodings instead of joining them",
            edited(sinusoidal_2d, ("dim // 2, base", "dim, base"), ("torch.cat([row, column], dim=1)", "row + column")),
            "A sum cannot tell (1, 2) from (2, 1). Each coordinate gets half of the entries, side by side.",
        ),
        Mistake(
            "gave each half the frequencies of the whole width",
            edited(sinusoidal_2d, ("sinusoidal_1d(grid_height, dim // 2, base)",
                                   "sinusoidal_1d(grid_height, dim, base)[:, : dim // 2]"),
                   ("sinusoidal_1d(grid_width, dim // 2, base)", "sinusoidal_1d(grid_width, dim, base)[:, : dim // 2]")),
            "Each half is a table of its own, of width D/2: its exponents are 2i / (D/2) and run from 0 to nearly 1. "
            "Yours stop half-way.",
        ),
        Mistake(
            "continued the column's frequencies where the row's ended",
            edited(sinusoidal_2d, ("sinusoidal_1d(grid_height, dim // 2, base)",
                                   "sinusoidal_1d(grid_height, dim, base)[:, : dim // 2]"),
                   ("sinusoidal_1d(grid_width, dim // 2, base)", "sinusoidal_1d(grid_width, dim, base)[:, dim // 2 :]")),
            "Both halves use the same frequencies. Call sinusoidal_1d with D/2 for each.",
        ),
        Mistake(
            "mixed the entries of the two halves",
            edited(sinusoidal_2d, ("torch.cat([row, column], dim=1)", "torch.stack([row, column], dim=-1).flatten(1)")),
            "Row and column entries alternate in your table. All entries of the row come first, then those of the column.",
        ),
        Mistake(
            "numbered the patches along one line",
            edited(sinusoidal_2d, ("return torch.cat([row, column], dim=1)",
                                   "return sinusoidal_1d(grid_height * grid_width, dim, base)")),
            "You encode the number of the patch, from 0 to N - 1. Encode its row and its column instead.",
        ),
        Mistake(
            "encoded the row twice",
            edited(sinusoidal_2d, ("torch.cat([row, column]", "torch.cat([row, row]")),
            "Both halves hold the row, so all patches of a row look alike. The second half encodes the column.",
        ),
        Mistake(
            "repeated rows and columns the same way",
            edited(sinusoidal_2d, ("base).repeat(grid_height, 1)", "base).repeat_interleave(grid_height, dim=0)")),
            "Along the table the row goes 0 0 0 1 1 1 and the column 0 1 2 0 1 2. `repeat_interleave` makes the first, "
            "`repeat` the second.",
        ),
        Mistake(
            "did not pass base on",
            edited(sinusoidal_2d, ("dim // 2, base", "dim // 2")),
            "`base` arrives in your function and ends there. Hand it to both calls of sinusoidal_1d.",
        ),
        Mistake(
            "gave base no default",
            edited(sinusoidal_2d).replace("base=10000.0", "base"),
            "`base` may be left out. Write `base=10000.0` in the signature.",
        ),
        Mistake(
            "left the table as a grid",
            edited(sinusoidal_2d, ("[row, column], dim=1)", "[row, column], dim=1).unflatten(0, (grid_height, grid_width))")),
            "The table has one row for each patch, h·w of them: flatten the two axes of the grid.",
        ),
        Mistake(
            "returned float32 always",
            edited(sinusoidal_2d, ("[row, column], dim=1)", "[row, column], dim=1).float()")),
            "The table has torch's default dtype, which people change with `torch.set_default_dtype`.",
        ),
        Mistake(
            "remembered the table",
            "import functools\n" + edited(sinusoidal_2d).replace("def ", "@functools.lru_cache\ndef ", 1),
            "A second call returns the same tensor again. Whoever changes the first result changes the second one too.",
        ),
        Mistake(
            "dropped the last entry of an odd dim",
            edited(sinusoidal_2d, ("if dim % 4 != 0", "if False")),
            "`dim // 2` rounds down: for dim 5 your table is 4 wide. Raise a ValueError that names dim and its value.",
        ),
        Mistake(
            "refused odd widths only",
            edited(sinusoidal_2d, ("if dim % 4 != 0", "if dim % 2 != 0"),
                   ("sinusoidal_1d(grid_height, dim // 2, base)", "sinusoidal_1d(grid_height, dim // 2 + dim // 2 % 2, base)"),
                   ("sinusoidal_1d(grid_width, dim // 2, base)", "sinusoidal_1d(grid_width, dim // 2 + dim // 2 % 2, base)"),
                   ("[row, column], dim=1)", "[row, column], dim=1)[:, :dim]")),
            "dim 6 has two halves of 3, and 3 entries are no pairs. Each half has to be even, so D is a multiple of 4.",
        ),
        Mistake(
            "used assert instead of ValueError",
            edited(sinusoidal_2d, ("raise ValueError", "raise AssertionError")),
            "`assert` states what cannot happen and disappears under `python -O`. For a bad argument raise a ValueError.",
        ),
        Mistake(
            "wrote an error message without the value",
            edited(sinusoidal_2d, (", got {dim}", "")),
            "Your ValueError does not give the value of dim.",
        ),
    ),
)  # fmt: skip

LEARNED_2D = Exercise(
    name="learned_2d",
    points=5,
    reference=learned_2d,
    minutes=15,
    difficulty=2,
    importance=3,
    picture=show_table,
    cases=(
        Group("joins row and column embedding, on a square grid", 1, (halves(1, 1, 3), halves(3, 3, 2)), TWO),
        Group(
            "works for grids that are not square",
            1,
            (halves(2, 5, 3), halves(4, 3, 1), halves(1, 4, 2), halves(5, 1, 6)),
            TWO,
        ),
        Group("lets gradients through to both embeddings", 1, (halves(2, 3, 4, torch.float64),), CONTRACT, gradients),
        Group(
            "keeps dtype and device, leaves its inputs alone and remembers nothing",
            1,
            (halves(2, 3, 4, torch.float64), halves(4, 3, 2)),
            CONTRACT,
            manners,
        ),
        Group(
            "refuses halves of different widths",
            1,
            (
                lambda draw: but(halves(3, 4, 2), "a wider row_embed", row_embed=draw.normal(3, 4))(draw),
                lambda draw: but(halves(3, 4, 5), "a narrower row_embed", row_embed=draw.normal(3, 3))(draw),
            ),
            CONTRACT,
        ),
    ),
    mistakes=(
        Mistake(
            "put the column's half first",
            edited(learned_2d, ("torch.cat([row, column]", "torch.cat([column, row]")),
            "The first D/2 entries come from row_embed, the others from col_embed.",
        ),
        Mistake(
            "walked through the grid column by column",
            edited(learned_2d, ("row_embed.repeat_interleave(len(col_embed), dim=0)", "row_embed.repeat(len(col_embed), 1)"),
                   ("col_embed.repeat(len(row_embed), 1)", "col_embed.repeat_interleave(len(row_embed), dim=0)")),
            "The second row of the table belongs to the patch on the right, (0, 1), not to the one below.",
        ),
        Mistake(
            "repeated rows and columns the same way",
            edited(learned_2d, ("row_embed.repeat_interleave(len(col_embed), dim=0)", "row_embed.repeat(len(col_embed), 1)")),
            "Along the table the row goes 0 0 0 1 1 1 and the column 0 1 2 0 1 2. `repeat_interleave` makes the first, "
            "`repeat` the second.",
        ),
        Mistake(
            "added the two embeddings instead of joining them",
            edited(learned_2d, ("torch.cat([row, column], dim=1)", "row + column")),
            "The halves stand side by side: D/2 entries each give D. A sum would be only D/2 wide.",
        ),
        Mistake(
            "mixed the entries of the two halves",
            edited(learned_2d, ("torch.cat([row, column], dim=1)", "torch.stack([row, column], dim=-1).flatten(1)")),
            "Row and column entries alternate in your table. All D/2 of the row come first, then those of the column.",
        ),
        Mistake(
            "took the grid to be square",
            edited(learned_2d, ("repeat_interleave(len(col_embed), dim=0)", "repeat_interleave(len(row_embed), dim=0)"),
                   ("return torch.cat([row, column]", "column = column[: len(row)]\n    return torch.cat([row[: len(column)], column]")),
            "The grid has len(row_embed) rows and len(col_embed) columns. You use one of them for both.",
        ),
        Mistake(
            "swapped the height and the width of the grid",
            edited(learned_2d, ("row_embed.repeat_interleave(len(col_embed), dim=0)",
                                "col_embed.repeat_interleave(len(row_embed), dim=0)"),
                   ("col_embed.repeat(len(row_embed), 1)", "row_embed.repeat(len(col_embed), 1)")),
            "row_embed has one entry for each row of the grid, col_embed one for each column. Yours are the other way round.",
        ),
        Mistake(
            "left the table as a grid",
            edited(learned_2d, ("[row, column], dim=1)", "[row, column], dim=1).unflatten(0, (len(row_embed), len(col_embed)))")),
            "The table has one row for each patch, h·w of them: flatten the two axes of the grid.",
        ),
        Mistake(
            "paired each row with one column only",
            edited(learned_2d, ("return torch.cat([row, column], dim=1)",
                                "count = min(len(row_embed), len(col_embed))\n"
                                "    return torch.cat([row_embed[:count], col_embed[:count]], dim=1)")),
            "You join row 0 with column 0, row 1 with column 1. Every row meets every column: h·w patches.",
        ),
        Mistake(
            "multiplied the two embeddings",
            edited(learned_2d, ("torch.cat([row, column], dim=1)", "torch.cat([row * column, column], dim=1)")),
            "The two halves do not touch each other: copy them side by side.",
        ),
        Mistake(
            "used the embedding of the first row everywhere",
            edited(learned_2d, ("row = row_embed.", "row = row_embed[:1].expand_as(row_embed).")),
            "All your patches have the same first half. Patch (r, c) gets entry r of row_embed.",
        ),
        Mistake(
            "cut the graph with detach",
            edited(learned_2d, ("torch.cat([row, column]", "torch.cat([row, column.detach()]")),
            "No gradient reaches one of the embeddings, so it would never be learned. Leave `detach` and `.data` out.",
        ),
        Mistake(
            "made new parameters",
            edited(learned_2d, ("return torch.cat([row, column], dim=1)",
                                "return torch.nn.Parameter(torch.cat([row, column], dim=1))")),
            "`nn.Parameter(...)` makes a new leaf: the gradient ends there and never reaches the embeddings that were given.",
        ),
        Mistake(
            "converted to float32",
            edited(learned_2d, ("[row, column], dim=1)", "[row, column], dim=1).float()")),
            "float64 embeddings come back as float32. Keep the dtype of the input.",
        ),
        Mistake(
            "filled a new tensor on the CPU",
            edited(learned_2d, ("return torch.cat([row, column], dim=1)",
                                "table = torch.zeros(len(row), 2 * row.shape[1], dtype=row.dtype)\n"
                                "    table[:, : row.shape[1]] = row\n    table[:, row.shape[1] :] = column\n    return table")),
            "The table is made on the CPU, whatever the device of the embeddings. Use `row_embed.new_zeros(...)`.",
        ),
        Mistake(
            "changed an embedding in place",
            edited(learned_2d, ("row = row_embed.", "row_embed.data.clamp_(-0.5, 0.5)\n    row = row_embed.")),
            "Your function writes into the embeddings it was given.",
        ),
        Mistake(
            "let halves of different widths through",
            edited(learned_2d, ("if row_embed.shape[1] != col_embed.shape[1]", "if False")),
            "`torch.cat` joins any two widths. Both halves are D/2 wide: compare the widths and raise.",
        ),
    ),
)  # fmt: skip

INTERPOLATE = Exercise(
    name="interpolate_position_embedding",
    points=7,
    reference=interpolate_position_embedding,
    minutes=30,
    difficulty=3,
    importance=5,
    picture=show_positions,
    cases=(
        Group(
            "enlarges a square grid and leaves [CLS] alone",
            1,
            (resize((2, 2), (4, 4), 3), resize((3, 3), (5, 5), 4), resize((4, 4), (7, 7), 1)),
            RESIZE,
        ),
        Group(
            "works for grids that are not square",
            1,
            (resize((2, 4), (5, 7), 3), resize((5, 3), (6, 8), 2), resize((3, 3), (3, 6), 5), resize((2, 6), (4, 3), 3)),
            RESIZE,
        ),
        Group(
            "makes a grid smaller, without antialiasing",
            1,
            (resize((6, 6), (3, 3), 2), resize((7, 5), (3, 2), 4), resize((4, 6), (1, 1), 3)),
            RESIZE,
        ),
        Group(
            "returns equal values for the same grid, and spreads a single patch",
            1,
            (resize((3, 4), (3, 4), 5), resize((2, 2), (2, 2), 3), resize((1, 1), (2, 3), 4)),
            RESIZE,
        ),
        Group(
            "lets gradients through to every embedding",
            1,
            (resize((2, 3), (4, 5), 4, torch.float64), resize((4, 3), (2, 2), 3, torch.float64)),
            CONTRACT,
            gradients,
        ),
        Group(
            "keeps dtype and device, leaves its input alone and remembers nothing",
            1,
            (resize((2, 3), (4, 5), 4, torch.float64), resize((3, 2), (2, 4), 3)),
            CONTRACT,
            manners,
        ),
        Group(
            "refuses a grid that does not match",
            1,
            (
                but(resize((3, 4), (5, 5), 3), "an old_grid with fewer patches", GRID_NAMES, (3, 9, 10, 12, 13), old_grid=(3, 3)),
                but(resize((3, 4), (5, 5), 3), "an old_grid with more patches", GRID_NAMES, (5, 20, 21, 12, 13), old_grid=(4, 5)),
                but(
                    lambda draw: {"pos_embed": draw.normal(1, 12, 3), "old_grid": (3, 4), "new_grid": (5, 5)},
                    "a pos_embed without [CLS]",
                    GRID_NAMES,
                    (3, 4, 11, 12, 13),
                ),
            ),
            RESIZE,
        ),
    ),
    mistakes=(
        Mistake(
            "interpolated [CLS] along with the patches",
            edited(interpolate_position_embedding, ("return torch.cat([cls, image.flatten(2).transpose(1, 2)], dim=1)",
                   "count = 1 + new_grid[0] * new_grid[1]\n"
                   "    return F.interpolate(pos_embed.transpose(1, 2), size=count, mode='linear').transpose(1, 2)")),
            "You stretch the whole sequence as one line. [CLS] has no place in the image: split it off, resize the patches "
            "as a grid, and put it back.",
        ),
        Mistake(
            "put [CLS] at the end",
            edited(interpolate_position_embedding, ("torch.cat([cls, image.flatten(2).transpose(1, 2)], dim=1)",
                                                    "torch.cat([image.flatten(2).transpose(1, 2), cls], dim=1)")),
            "The [CLS] token comes first, and so does its embedding.",
        ),
        Mistake(
            "lost [CLS]",
            edited(interpolate_position_embedding, ("torch.cat([cls, image.flatten(2).transpose(1, 2)], dim=1)",
                                                    "image.flatten(2).transpose(1, 2)")),
            "The result has one embedding too few: that of [CLS] comes back in front of the patches.",
        ),
        Mistake(
            "left [CLS] at zero",
            edited(interpolate_position_embedding, ("torch.cat([cls,", "torch.cat([torch.zeros_like(cls),")),
            "The embedding of [CLS] is kept as it is.",
        ),
        Mistake(
            "took the last embedding for [CLS]",
            edited(interpolate_position_embedding, ("pos_embed[:, :1], pos_embed[:, 1:]", "pos_embed[:, -1:], pos_embed[:, :-1]")),
            "[CLS] has index 0. You treat the last patch as [CLS], so every patch is read one place too early.",
        ),
        Mistake(
            "interpolated bilinearly",
            edited(interpolate_position_embedding, ('mode="bicubic"', 'mode="bilinear"')),
            'The contract says bicubic: `mode="bicubic"`.',
        ),
        Mistake(
            "copied the nearest patch",
            edited(interpolate_position_embedding, ('mode="bicubic", align_corners=False, antialias=False', 'mode="nearest"')),
            "`F.interpolate` copies the nearest value unless you say otherwise. The contract says bicubic.",
        ),
        Mistake(
            "set align_corners to True",
            edited(interpolate_position_embedding, ("align_corners=False", "align_corners=True")),
            "With align_corners=True the centres of the corner patches stay in place. Here the corners of the image do: False.",
        ),
        Mistake(
            "switched antialiasing on",
            edited(interpolate_position_embedding, ("antialias=False", "antialias=True")),
            "Antialiasing blurs before it makes a grid smaller (timm does that). The contract leaves it off.",
        ),
        Mistake(
            "reshaped to channels without moving axes",
            edited(interpolate_position_embedding, ("patches.transpose(1, 2).unflatten(2, (height, width))",
                                                    "patches.reshape(1, -1, height, width)")),
            "The D entries of a patch stand together in memory, so a reshape to (1, D, h, w) mixes patches and entries. "
            "Transpose, or permute, first.",
        ),
        Mistake(
            "reshaped back without moving axes",
            edited(interpolate_position_embedding, ("image.flatten(2).transpose(1, 2)", "image.reshape(1, -1, cls.shape[-1])")),
            "After the resize the axes are (1, D, h', w'). Flatten the grid and transpose: a reshape alone mixes entries.",
        ),
        Mistake(
            "swapped the height and the width of the old grid",
            edited(interpolate_position_embedding, ("height, width = old_grid", "width, height = old_grid")),
            "old_grid is (height, width). With square grids nobody notices.",
        ),
        Mistake(
            "swapped the height and the width of the new grid",
            edited(interpolate_position_embedding, ("size=tuple(new_grid)", "size=tuple(new_grid)[::-1]")),
            "new_grid is (height, width), and so is `size` of F.interpolate.",
        ),
        Mistake(
            "took the grids to be square",
            edited(interpolate_position_embedding, ("size=tuple(new_grid)", "size=(new_grid[0], new_grid[0])")),
            "The new grid has a height and a width. You use one of them twice.",
        ),
        Mistake(
            "read the patches column by column",
            edited(interpolate_position_embedding, ("unflatten(2, (height, width))", "unflatten(2, (width, height)).transpose(2, 3)"),
                   ("image.flatten(2)", "image.transpose(2, 3).flatten(2)")),
            "Patches are numbered row by row: unflatten them to (height, width) in that order.",
        ),
        Mistake(
            "shifted the patches by a fraction of a patch",
            edited(interpolate_position_embedding, ("size=tuple(new_grid),",
                   "scale_factor=tuple((new + 0.1) / old for new, old in zip(new_grid, old_grid)),")),
            "A scale factor with a small offset shifts every sample. Give `size=new_grid`: it has no rounding to work around.",
        ),
        Mistake(
            "cut the graph with detach",
            edited(interpolate_position_embedding, ("image = patches.", "image = patches.detach().")),
            "No gradient reaches the embeddings of the patches. Leave `detach`, `.data` and NumPy out.",
        ),
        Mistake(
            "converted to float32",
            edited(interpolate_position_embedding, ("image = patches.", "cls = cls.float()\n    image = patches.float().")),
            "float64 embeddings come back as float32. Keep the dtype of the input.",
        ),
        Mistake(
            "interpolated in float32",
            edited(interpolate_position_embedding, ("image = patches.", "image = patches.float()."),
                   ("image.flatten(2)", "image.to(pos_embed.dtype).flatten(2)")),
            "The dtype is right, but digits were lost on the way through float32. F.interpolate takes float64 as it is.",
        ),
        Mistake(
            "changed the embeddings in place",
            edited(interpolate_position_embedding, ("cls, patches = ", "pos_embed.data[:, 1:] -= 0.5\n    cls, patches = "),
                   ("image = F", "image = image + 0.5\n    image = F")),
            "Your function writes into the embeddings it was given.",
        ),
        Mistake(
            "let torch's own error through",
            edited(interpolate_position_embedding, ("if pos_embed.shape[1] != 1 + height * width", "if False")),
            "A grid that does not match ends in an error about shapes. Compare the number of embeddings with 1 + h·w first and "
            "raise a ValueError that says so.",
        ),
        Mistake(
            "cut the embeddings to fit the grid",
            edited(interpolate_position_embedding, ("if pos_embed.shape[1] != 1 + height * width", "if False"),
                   ("pos_embed[:, 1:]", "pos_embed[:, 1 : 1 + height * width]")),
            "Embeddings that are too many vanish without a word, and the others get other places. Refuse such a grid.",
        ),
        Mistake(
            "guessed a square grid",
            edited(interpolate_position_embedding, ("height, width = old_grid", "height = width = round((pos_embed.shape[1] - 1) ** 0.5)")),
            "Twelve patches may be 3 x 4 or 2 x 6. The old grid is given: use it and check that it fits.",
        ),
        Mistake(
            "accepted embeddings without [CLS]",
            edited(interpolate_position_embedding, ("height, width = old_grid",
                   "height, width = old_grid\n    if pos_embed.shape[1] == height * width:\n"
                   "        pos_embed = torch.cat([pos_embed[:, :1], pos_embed], dim=1)")),
            "The contract has an embedding for [CLS] in front: 1 + h·w in all. Refuse another number.",
        ),
    ),
)  # fmt: skip

SIMILARITY = Exercise(
    name="position_similarity",
    points=6,
    reference=position_similarity,
    minutes=20,
    difficulty=2,
    importance=3,
    picture=show_similarity,
    cases=(
        Group("gives the cosine for every two patches of a square grid", 1, (places((2, 2), 5), places((3, 3), 4)), ALIKE),
        Group(
            "works for grids that are not square",
            1,
            (places((2, 4), 5), places((5, 3), 2), places((1, 4), 3), places((3, 1), 6), places((1, 1), 4)),
            ALIKE,
        ),
        Group(
            "is exact for embeddings as small as new ones",
            1,
            (places((2, 3), 4, 0.02, torch.float64), places((3, 2), 8, 0.02)),
            ALIKE,
        ),
        Group(
            "lets gradients through to the embeddings", 1, (places((2, 3), 4, dtype=torch.float64),), CONTRACT, gradients
        ),
        Group(
            "keeps dtype and device, leaves its input alone and remembers nothing",
            1,
            (places((2, 3), 4, dtype=torch.float64), places((3, 2), 5)),
            CONTRACT,
            manners,
        ),
        Group(
            "refuses a grid that does not match",
            1,
            (
                but(places((3, 4), 3), "a grid with fewer patches", GRID_NAMES, (3, 9, 10, 12, 13), grid=(3, 3)),
                but(places((3, 4), 3), "a grid with more patches", GRID_NAMES, (4, 5, 20, 21, 12, 13), grid=(4, 5)),
                but(
                    lambda draw: {"pos_embed": draw.normal(1, 12, 3), "grid": (3, 4)},
                    "a pos_embed without [CLS]",
                    GRID_NAMES,
                    (3, 4, 11, 12, 13),
                ),
            ),
            ALIKE,
        ),
    ),
    mistakes=(
        Mistake(
            "returned dot products",
            edited(position_similarity, (" / patches.norm(dim=-1, keepdim=True)", "")),
            "Dot products grow with the length of the vectors. The cosine divides by both lengths: every patch is 1 to itself.",
        ),
        Mistake(
            "divided by one length only",
            edited(position_similarity, ("unit @ unit.T", "unit @ patches.T")),
            "You divide by the length of one of the two vectors. Divide by both.",
        ),
        Mistake(
            "divided by the squared lengths",
            edited(position_similarity, ("patches.norm(dim=-1, keepdim=True)", "patches.square().sum(dim=-1, keepdim=True)")),
            "The length is the root of the sum of squares. Every patch has similarity 1 to itself.",
        ),
        Mistake(
            "divided by the length of the whole table",
            edited(position_similarity, ("patches.norm(dim=-1, keepdim=True)", "patches.norm()")),
            "`norm()` without `dim` is one number for the whole table. Each vector has its own length: dim=-1, keepdim=True.",
        ),
        Mistake(
            "normalised every entry over the patches",
            edited(position_similarity, ("patches.norm(dim=-1, keepdim=True)", "patches.norm(dim=0, keepdim=True)")),
            "The length of a vector goes over its D entries, not over the patches.",
        ),
        Mistake(
            "used the sum of absolute values as length",
            edited(position_similarity, ("patches.norm(dim=-1, keepdim=True)", "patches.abs().sum(dim=-1, keepdim=True)")),
            "The cosine needs the Euclidean length: the root of the sum of squares.",
        ),
        Mistake(
            "subtracted the mean embedding first",
            edited(position_similarity, ("patches = pos_embed[0, 1:]", "patches = pos_embed[0, 1:] - pos_embed[0, 1:].mean(0)")),
            "With the mean taken away this is a correlation. The contract asks for the plain cosine.",
        ),
        Mistake(
            "counted [CLS] as a patch",
            edited(position_similarity, ("pos_embed[0, 1:]", "pos_embed[0, :-1]")),
            "Embedding 0 belongs to [CLS]. You drop the last patch instead, so every patch is one place off.",
        ),
        Mistake(
            "left [CLS] in",
            edited(position_similarity, ("patches = pos_embed[0, 1:]", "patches = pos_embed[0]"),
                   (".reshape(height, width, height, width)", "")),
            "[CLS] has no place in the grid. Leave it out and reshape to (h, w, h, w).",
        ),
        Mistake(
            "returned a flat table",
            edited(position_similarity, (".reshape(height, width, height, width)", "")),
            "The values are there. Split both axes into the grid: (h, w, h, w).",
        ),
        Mistake(
            "swapped the height and the width of the grid",
            edited(position_similarity, ("height, width = grid", "width, height = grid")),
            "grid is (height, width). With a square grid nobody notices.",
        ),
        Mistake(
            "read the patches column by column",
            edited(position_similarity, ("reshape(height, width, height, width)",
                                         "reshape(width, height, width, height).permute(1, 0, 3, 2)")),
            "Patches are numbered row by row: split N into (height, width) in that order.",
        ),
        Mistake(
            "put the grid's axes in another order",
            edited(position_similarity, ("reshape(height, width, height, width)",
                                         "reshape(height, width, height, width).transpose(1, 2)")),
            "The first two axes say which patch, the last two to which it is compared: (r, c, r', c').",
        ),
        Mistake(
            "returned distances",
            edited(position_similarity, ("similarity = unit @ unit.T", "similarity = 1 - unit @ unit.T")),
            "Yours is 0 where vectors agree. A similarity is 1 there.",
        ),
        Mistake(
            "took the absolute value",
            edited(position_similarity, ("unit @ unit.T", "(unit @ unit.T).abs()")),
            "Opposite vectors have similarity -1, not 1.",
        ),
        Mistake(
            "added a small number to the lengths",
            edited(position_similarity, ("patches.norm(dim=-1, keepdim=True)", "(patches.norm(dim=-1, keepdim=True) + 1e-6)")),
            "New embeddings have entries of about 0.02, so 1e-6 shows. Divide by the length itself; if you fear zero, "
            "`clamp(min=1e-12)` changes nothing else.",
        ),
        Mistake(
            "cut the graph with detach",
            edited(position_similarity, ("unit @ unit.T", "unit @ unit.detach().T")),
            "Each embedding counts twice, as the first vector and as the second. You cut one of the two paths of the gradient.",
        ),
        Mistake(
            "converted to float32",
            edited(position_similarity, ("pos_embed[0, 1:]", "pos_embed[0, 1:].float()")),
            "A float64 table gives a float32 result. Keep the dtype of the input.",
        ),
        Mistake(
            "normalised in place",
            edited(position_similarity, ("unit = patches / patches.norm(dim=-1, keepdim=True)",
                                         "patches.data.div_(patches.norm(dim=-1, keepdim=True))\n    unit = patches")),
            "Your function writes into the embeddings it was given. `pos_embed[0, 1:]` is a view of them: `/=` and `div_` "
            "change both.",
        ),
        Mistake(
            "let torch's own error through",
            edited(position_similarity, ("if pos_embed.shape[1] != 1 + height * width", "if False")),
            "A grid that does not match ends in an error about shapes. Compare the number of embeddings with 1 + h·w first and "
            "raise a ValueError that says so.",
        ),
        Mistake(
            "accepted embeddings without [CLS]",
            edited(position_similarity, ("if pos_embed.shape[1] != 1 + height * width", "if pos_embed.shape[1] not in (height * width, 1 + height * width)"),
                   ("pos_embed[0, 1:]", "pos_embed[0, -height * width :]")),
            "The contract has an embedding for [CLS] in front: 1 + h·w in all. Refuse another number.",
        ),
    ),
)  # fmt: skip

ASSIGNMENT = Assignment(
    name="position_embedding",
    title="Where is a patch?",
    chapter="03_position_embedding",
    exercises=(SINUSOIDAL_1D, SINUSOIDAL_2D, LEARNED_2D, INTERPOLATE, SIMILARITY),
)
