"""Chapter 2: patch embedding, the [CLS] token and z_0."""

from collections.abc import Callable
from typing import Any

import torch

from autograder.judge import error_name, shape
from autograder.probes import (
    Inputs,
    gradients,
    manners,
    module_gradients,
    module_manners,
    module_start,
    module_value,
)
from autograder.reference.patch_embedding import (
    PatchEmbedding,
    add_position_embedding,
    embed_patches,
    prepend_cls_token,
)
from autograder.spec import Assignment, Draw, Exercise, Group, Mistake, edited

PROJECT, CLS, POSITION, MODULE = (
    "Patches become tokens",
    "The [CLS] token",
    "Position embedding",
    "One module for z_0",
)
CONTRACT = "What every answer owes its caller"


def linear(
    batch: int, count: int, values: int, dim: int, bias: bool = True, dtype: torch.dtype = torch.float32
) -> Callable[[Draw], Inputs]:
    """Draw patches and a projection, with or without bias."""

    def draw_linear(draw: Draw) -> Inputs:
        inputs = {
            "patches": draw.normal(batch, count, values, dtype=dtype),
            "weight": draw.normal(values, dim, dtype=dtype),
        }
        return {**inputs, "bias": draw.normal(dim, dtype=dtype)} if bias else inputs

    return draw_linear


def with_cls(
    batch: int, count: int, dim: int, dtype: torch.dtype = torch.float32
) -> Callable[[Draw], Inputs]:
    """Draw tokens and a [CLS] token."""
    return lambda draw: {
        "tokens": draw.normal(batch, count, dim, dtype=dtype),
        "cls_token": draw.normal(1, 1, dim, dtype=dtype),
    }


def with_positions(
    batch: int, length: int, dim: int, dtype: torch.dtype = torch.float32
) -> Callable[[Draw], Inputs]:
    """Draw tokens and position embeddings."""
    return lambda draw: {
        "tokens": draw.normal(batch, length, dim, dtype=dtype),
        "position_embedding": draw.normal(1, length, dim, dtype=dtype),
    }


def module(
    image_size: int | tuple[int, int],
    patch: int,
    channels: int,
    dim: int,
    batch: int = 2,
    dtype: torch.dtype = torch.float32,
) -> Callable[[Draw], Inputs]:
    """Draw a PatchEmbedding with given parameters, and images for it."""

    def draw_module(draw: Draw) -> Inputs:
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        count = (height // patch) * (width // patch)
        return {
            "image_size": image_size,
            "patch_size": patch,
            "in_channels": channels,
            "dim": dim,
            "_state": {
                "cls_token": draw.normal(1, 1, dim, dtype=dtype),
                "pos_embed": draw.normal(1, count + 1, dim, dtype=dtype),
                "proj.weight": draw.normal(dim, channels, patch, patch, dtype=dtype),
                "proj.bias": draw.normal(dim, dtype=dtype),
            },
            "_forward": {"images": draw.normal(batch, channels, height, width, dtype=dtype)},
        }

    return draw_module


def new(**changed: Any) -> Callable[[Draw], Inputs]:
    """A new module, nothing loaded: large enough for the spread of its position embedding to be measured."""
    return lambda draw: {"image_size": 16, "patch_size": 2, "in_channels": 3, "dim": 96, **changed}


def but(
    make: Callable[[Draw], Inputs], because: str, **changed: Callable[[Draw], Any]
) -> Callable[[Draw], Inputs]:
    """Draw inputs that any error may refuse: those of `make` with some changed."""
    return lambda draw: {
        **make(draw),
        **{name: change(draw) for name, change in changed.items()},
        "_because": because,
        "_any_error": True,
    }


def bad(
    because: str, names: tuple[str, ...], values: tuple[Any, ...], **changed: Any
) -> Callable[[Draw], Inputs]:
    """Draw arguments that a ValueError must refuse, whose message mentions one of `names` and of `values`."""
    return lambda draw: {**new(**changed)(draw), "_because": because, "_names": names, "_values": values}


SIZE_NAMES = ("image_size", "height", "width", "image", "size", "h", "w", "patch_size", "patch", "p")
PATCH_NAMES = ("patch_size", "patch", "p")


def has_parameters(yours: dict[str, Any], expected: dict[str, Any], inputs: dict[str, Any]) -> str | None:
    """Judge names, shapes and trainability of a new module's parameters."""
    if "raised" in yours:
        return f"your code stopped with {error_name(yours['raised'])}"
    for name, want in expected["start"].items():
        got = yours["start"].get(name)
        if not isinstance(got, torch.Tensor):
            return f"the state dict has no {name}"
        if got.shape != want.shape:
            return f"{name} has shape {shape(got)}, expected {shape(want)}"
        if yours["trainable"].get(name) is not True:
            return f"{name} is not a trainable parameter"
    extra = len(yours["start"]) - len(expected["start"])
    return f"the state dict has {extra} entries too many" if extra > 0 else None


def starts_right(yours: dict[str, Any], expected: dict[str, Any], inputs: dict[str, Any]) -> str | None:
    """Judge the initial values: cls_token zero, pos_embed normal with mean 0 and standard deviation 0.02."""
    problem = has_parameters(yours, expected, inputs)
    if problem:
        return problem
    if yours["start"]["cls_token"].any():
        return "cls_token does not start at zero"
    values = yours["start"]["pos_embed"].double()
    if not values.isfinite().all() or values.std() == 0:
        return "pos_embed does not start with random values"
    if abs(values.std() - 0.02) > 0.001 or abs(values.mean()) > 0.0015:
        return f"pos_embed starts with mean {values.mean():.4f} and standard deviation {values.std():.4f}, expected 0 and 0.02"
    peakedness = ((values - values.mean()) / values.std()).pow(4).mean()
    if not 2.6 < peakedness < 3.4:
        return "pos_embed does not start from a normal distribution"
    if not yours["start"]["proj.weight"].any():
        return "proj.weight starts at zero"
    return None


EMBED_PATCHES = Exercise(
    name="embed_patches",
    points=5,
    reference=embed_patches,
    minutes=10,
    difficulty=1,
    importance=4,
    cases=(
        Group("projects one patch", 1, (linear(1, 1, 12, 5), linear(1, 1, 4, 4)), PROJECT),
        Group("projects every patch of every image with the same weight", 1, (linear(2, 3, 12, 5), linear(3, 2, 4, 4)), PROJECT),
        Group("works without a bias", 1, (linear(2, 3, 12, 5, bias=False), lambda draw: {**linear(2, 3, 8, 5)(draw), "bias": None}), PROJECT),
        Group("lets gradients through to patches, weight and bias", 1, (linear(2, 3, 6, 5, dtype=torch.float64),), CONTRACT, gradients),
        Group(
            "keeps dtype and device, leaves its inputs alone and remembers nothing, and refuses what does not fit",
            1,
            (
                linear(2, 3, 6, 5, dtype=torch.float64),
                linear(2, 3, 6, 5),
                but(linear(2, 3, 12, 5), "patches whose length is not that of the weight", patches=lambda draw: draw.normal(2, 3, 11)),
                but(linear(2, 3, 12, 5), "a bias of another length", bias=lambda draw: draw.normal(6)),
            ),
            CONTRACT,
            manners,
        ),
    ),
    mistakes=(
        Mistake("forgot the bias", edited(embed_patches, ("tokens = tokens + bias", "pass")), "The bias is given but never added."),
        Mistake("added the bias before the projection", edited(embed_patches, ("tokens = patches @ weight\n", "tokens = (patches + (bias.mean() if bias is not None else 0)) @ weight\n"), ("tokens = tokens + bias", "pass")), "The bias has D entries, one for each output: it is added after the product."),
        Mistake("subtracted the bias", edited(embed_patches, ("tokens + bias", "tokens - bias")), "The bias is added, not subtracted."),
        Mistake("required a bias", edited(embed_patches, ("    if bias is not None:\n        tokens", "    tokens")).replace("bias=None", "bias"), "`bias` may be left out or be None. Give it the default None and add it only when it is there."),
        Mistake("asked for the truth of a tensor", edited(embed_patches, ("if bias is not None", "if bias")), "`if bias:` asks for the truth of a tensor of D entries, which torch refuses. Write `if bias is not None:`."),
        Mistake("transposed the weight", edited(embed_patches, ("patches @ weight", "patches @ weight.reshape(weight.shape[1], weight.shape[0]).T")), "E has shape (P²C, D): patches multiply it from the left as it is. `F.linear` wants (D, P²C), that is the transpose, not a reshape."),
        Mistake("scaled the tokens by the square root of D", edited(embed_patches, ("patches @ weight", "patches @ weight * weight.shape[1] ** 0.5")), "Some text models scale their embeddings. Equation 1 of the ViT paper does not."),
        Mistake("applied a nonlinearity", edited(embed_patches, ("return tokens", "return tokens.relu()")), "The patch embedding is linear: no activation follows it."),
        Mistake("averaged over the values of a patch", edited(embed_patches, ("patches @ weight", "patches @ weight / patches.shape[-1]")), "A matrix product sums over the values of a patch, it does not average."),
        Mistake("embedded only the first image", edited(embed_patches, ("return tokens", "return tokens[:1].expand_as(tokens)")), "All images of the batch get the tokens of the first one."),
        Mistake("embedded only the first patch", edited(embed_patches, ("return tokens", "return tokens[:, :1].expand_as(tokens)")), "All patches of an image get the token of its first patch."),
        Mistake("cut the graph with detach", edited(embed_patches, ("patches @ weight", "patches @ weight.detach()")), "No gradient reaches the weight, so E would never be trained. Leave `detach` and `.data` out."),
        Mistake("converted to float32", edited(embed_patches, ("return tokens", "return tokens.float()")), "float64 patches give float32 tokens. Keep the dtype of the input."),
        Mistake("changed the patches in place", edited(embed_patches, ("tokens = patches @ weight\n", "tokens = patches @ weight\n    with torch.no_grad():\n        patches.zero_()\n")), "Your function writes into the patches it was given."),
    ),
)  # fmt: skip

PREPEND_CLS_TOKEN = Exercise(
    name="prepend_cls_token",
    points=5,
    reference=prepend_cls_token,
    minutes=10,
    difficulty=1,
    importance=4,
    cases=(
        Group("puts the [CLS] token before the tokens of one image", 1, (with_cls(1, 4, 6), with_cls(1, 1, 3)), CLS),
        Group("gives every image of a batch the same [CLS] token", 2, (with_cls(3, 4, 5), with_cls(2, 2, 2), with_cls(4, 1, 3)), CLS),
        Group("lets gradients of all images through to the one [CLS] token", 1, (with_cls(3, 2, 5, torch.float64),), CLS, gradients),
        Group(
            "keeps dtype and device, leaves its inputs alone and remembers nothing, and refuses what does not fit",
            1,
            (
                with_cls(3, 2, 5, torch.float64),
                with_cls(3, 2, 5),
                but(with_cls(2, 3, 4), "a [CLS] token of another width", cls_token=lambda draw: draw.normal(1, 1, 5)),
            ),
            CONTRACT,
            manners,
        ),
    ),
    mistakes=(
        Mistake("appended the [CLS] token at the end", edited(prepend_cls_token, ("[cls_token.expand(batch, -1, -1), tokens]", "[tokens, cls_token.expand(batch, -1, -1)]")), "The [CLS] token comes first: later chapters read z_L⁰, the token with index 0."),
        Mistake("replaced the first patch", edited(prepend_cls_token, (", tokens]", ", tokens[:, 1:]]")), "The sequence grows by one: N patches become N + 1 tokens. No patch is dropped."),
        Mistake("forgot to repeat the token for every image", edited(prepend_cls_token, ("cls_token.expand(batch, -1, -1)", "cls_token")), "`torch.cat` wants the same batch size everywhere: expand the token of shape (1, 1, D) to (B, 1, D)."),
        Mistake("joined along the batch", edited(prepend_cls_token, ("[cls_token.expand(batch, -1, -1), tokens], dim=1", "[cls_token.expand(-1, tokens.shape[1], -1), tokens], dim=0")), "Axis 0 counts images, axis 1 counts tokens. The [CLS] token is one more token: join along axis 1."),
        Mistake("joined along the width", edited(prepend_cls_token, ("[cls_token.expand(batch, -1, -1), tokens], dim=1", "[cls_token.expand(batch, tokens.shape[1], -1), tokens], dim=2")), "Axis 2 holds the D values of a token. The [CLS] token is one more token: join along axis 1."),
        Mistake("added instead of prepending", edited(prepend_cls_token, ("torch.cat([cls_token.expand(batch, -1, -1), tokens], dim=1)", "tokens + cls_token")), "The [CLS] token is a token of its own, not an offset of the others."),
        Mistake("prepended zeros", edited(prepend_cls_token, ("cls_token.expand", "torch.zeros_like(cls_token).expand")), "The given token is not used. Zero is only its value before training."),
        Mistake("prepended the mean of the patches", edited(prepend_cls_token, ("cls_token.expand(batch, -1, -1)", "tokens.mean(1, keepdim=True) + 0 * cls_token")), "[CLS] is learned and the same for every image; it does not depend on the patches."),
        Mistake("gave the token to the first image only", edited(prepend_cls_token, ("cls_token.expand(batch, -1, -1)", "torch.nn.functional.pad(cls_token, (0, 0, 0, 0, 0, batch - 1))")), "Only the first image gets the token, the others get zeros."),
        Mistake("prepended it once for every image of the batch", edited(prepend_cls_token, ("cls_token.expand(batch, -1, -1)", "cls_token.expand(batch, batch, -1)")), "Every image gets one [CLS] token, however large the batch is."),
        Mistake("cut the graph with detach", edited(prepend_cls_token, ("cls_token.expand", "cls_token.detach().expand")), "No gradient reaches the [CLS] token, so it would stay at zero for ever."),
        Mistake("made a new parameter", edited(prepend_cls_token, ("cls_token.expand", "torch.nn.Parameter(cls_token).expand")), "`nn.Parameter(...)` inside the function makes a new leaf: the gradient goes there, not to the token that was given."),
        Mistake("converted to float32", edited(prepend_cls_token, ("tokens], dim=1)", "tokens], dim=1).float()")), "float64 tokens come back as float32. Keep the dtype of the input."),
        Mistake("changed the tokens in place", edited(prepend_cls_token, ("return torch", "result = torch"), ("dim=1)", "dim=1)\n    with torch.no_grad():\n        tokens[:, 0] = cls_token[0, 0]\n    return result")), "Your function writes into the tokens it was given."),
    ),
)  # fmt: skip

ADD_POSITION_EMBEDDING = Exercise(
    name="add_position_embedding",
    points=5,
    reference=add_position_embedding,
    minutes=10,
    difficulty=1,
    importance=4,
    cases=(
        Group("adds the position embedding to the tokens of one image", 1, (with_positions(1, 4, 6), with_positions(1, 1, 3)), POSITION),
        Group("adds the same position embedding to every image", 1, (with_positions(3, 4, 5), with_positions(2, 2, 2), with_positions(5, 1, 5)), POSITION),
        Group("lets gradients through to tokens and position embedding", 1, (with_positions(3, 2, 5, torch.float64),), CONTRACT, gradients),
        Group("keeps dtype and device, leaves its inputs alone and remembers nothing", 1, (with_positions(3, 2, 5, torch.float64), with_positions(3, 2, 5)), CONTRACT, manners),
        Group(
            "refuses a position embedding for another number of tokens",
            1,
            (
                but(with_positions(2, 4, 3), "too many positions", position_embedding=lambda draw: draw.normal(1, 5, 3)),
                but(with_positions(2, 4, 3), "too few positions", position_embedding=lambda draw: draw.normal(1, 3, 3)),
                but(with_positions(2, 4, 3), "a single position, which torch would broadcast", position_embedding=lambda draw: draw.normal(1, 1, 3)),
                but(with_positions(2, 1, 3), "a single token, which torch would broadcast", position_embedding=lambda draw: draw.normal(1, 4, 3)),
            ),
            POSITION,
        ),
    ),
    mistakes=(
        Mistake("joined instead of adding", edited(add_position_embedding, ("tokens + position_embedding", "torch.cat([tokens, position_embedding.expand_as(tokens)], dim=-1)")), "ViT adds E_pos to the tokens; the width stays D."),
        Mistake("multiplied instead of adding", edited(add_position_embedding, ("tokens + position_embedding", "tokens * position_embedding")), "Equation 1 adds E_pos. A product would erase a token wherever its position embedding is near zero, which is nearly everywhere at the start."),
        Mistake("skipped the [CLS] token", edited(add_position_embedding, ("return tokens + position_embedding", "return torch.cat([tokens[:, :1], tokens[:, 1:] + position_embedding[:, 1:]], dim=1)")), "In ViT the [CLS] token has a position embedding too: E_pos has N + 1 rows."),
        Mistake("shifted the positions by one", edited(add_position_embedding, ("tokens + position_embedding", "tokens + position_embedding.roll(1, dims=1)")), "Token i gets row i of E_pos; yours gets the row of its neighbour."),
        Mistake("gave every token the first position", edited(add_position_embedding, ("tokens + position_embedding", "tokens + position_embedding[:, :1]")), "All tokens get the same vector, so the model cannot tell them apart."),
        Mistake("gave every token the mean position", edited(add_position_embedding, ("tokens + position_embedding", "tokens + position_embedding.mean(1, keepdim=True)")), "The mean over positions is one vector for all tokens. Each token needs its own row of E_pos."),
        Mistake("added it to the first image only", edited(add_position_embedding, ("return tokens + position_embedding", "return torch.cat([tokens[:1] + position_embedding, tokens[1:]])")), "Only the first image of the batch gets positions."),
        Mistake("divided by the number of positions", edited(add_position_embedding, ("tokens + position_embedding", "tokens + position_embedding / position_embedding.shape[1]")), "E_pos is added as it is, without a scale."),
        Mistake("subtracted the position embedding", edited(add_position_embedding, ("tokens + position_embedding", "tokens - position_embedding")), "Your result has E_pos with the opposite sign. Subtracting could be learned just as well, but equation 1 adds, and given weights mean the sum."),
        Mistake("let torch broadcast a single position", edited(add_position_embedding, ("if tokens.shape[1:] != position_embedding.shape[1:]", "if position_embedding.shape[1] not in (1, tokens.shape[1])")), "With one row torch broadcasts silently and every token gets the same position. Compare the lengths yourself."),
        Mistake("let torch broadcast without a check", edited(add_position_embedding, ("if tokens.shape[1:] != position_embedding.shape[1:]", "if False")), "torch refuses most lengths that differ, but broadcasts a length of 1 silently. Compare the lengths yourself."),
        Mistake("cut off positions that are too many", edited(add_position_embedding, ("if tokens.shape[1:] != position_embedding.shape[1:]", "position_embedding = position_embedding[:, : tokens.shape[1]]\n    if tokens.shape[1:] != position_embedding.shape[1:]")), "Positions of another image size do not mean the same places. They have to be interpolated (next chapter), not cut: refuse them here."),
        Mistake("cut the graph with detach", edited(add_position_embedding, ("tokens + position_embedding", "tokens + position_embedding.detach()")), "No gradient reaches the position embedding, so it would never be learned."),
        Mistake("added in place", edited(add_position_embedding, ("return tokens + position_embedding", "return tokens.add_(position_embedding) if not tokens.requires_grad else tokens + position_embedding")), "`tokens += ...` and `add_` change the caller's tokens. Return a new tensor: `tokens + ...`."),
        Mistake("converted to float32", edited(add_position_embedding, ("return tokens + position_embedding", "return (tokens + position_embedding).float()")), "float64 tokens come back as float32. Keep the dtype of the input."),
    ),
)  # fmt: skip

PATCH_EMBEDDING = Exercise(
    name="PatchEmbedding",
    points=8,
    reference=PatchEmbedding,
    minutes=30,
    difficulty=3,
    importance=5,
    probe=module_value,
    cases=(
        Group("has the parameters of the contract, all trainable", 1, (new(), new(image_size=(4, 6), in_channels=1, dim=5)), MODULE, module_start, has_parameters),
        Group("starts with cls_token zero and pos_embed normal with standard deviation 0.02", 1, (new(),), MODULE, module_start, starts_right),
        Group("computes z_0 of square images", 1, (module(8, 4, 3, 6), module(6, 2, 1, 5, batch=1)), MODULE),
        Group("computes z_0 of images that are not square, of one patch and of other channel counts", 1, (module((4, 8), 2, 3, 6), module((6, 3), 3, 2, 5), module((4, 4), 4, 5, 3)), MODULE),
        Group("lets gradients through to images and all parameters", 1, (module((4, 6), 2, 3, 5, dtype=torch.float64),), MODULE, module_gradients),
        Group("keeps dtype and device, leaves images and parameters alone and remembers nothing", 1, (module((4, 6), 2, 3, 5, dtype=torch.float64), module((4, 6), 2, 3, 5)), CONTRACT, module_manners),
        Group(
            "refuses images of another size or channel count",
            1,
            (
                but(module((4, 8), 2, 3, 6), "images that are larger", _forward=lambda draw: {"images": draw.normal(2, 3, 6, 8)}),
                but(module((4, 8), 2, 3, 6), "images with height and width swapped", _forward=lambda draw: {"images": draw.normal(2, 3, 8, 4)}),
                but(module((4, 8), 2, 3, 6), "images of another size with as many patches", _forward=lambda draw: {"images": draw.normal(2, 3, 2, 16)}),
                but(module((4, 8), 2, 3, 6), "images with one more row, which a convolution drops", _forward=lambda draw: {"images": draw.normal(2, 3, 5, 8)}),
                but(module((4, 8), 2, 3, 6), "images with one more column, which a convolution drops", _forward=lambda draw: {"images": draw.normal(2, 3, 4, 9)}),
                but(module((4, 8), 2, 3, 6), "images with one channel", _forward=lambda draw: {"images": draw.normal(2, 1, 4, 8)}),
                but(module(4, 4, 3, 6), "images of one patch that are smaller than the patch", _forward=lambda draw: {"images": draw.normal(2, 3, 2, 4)}),
            ),
            MODULE,
        ),
        Group(
            "refuses sizes that are not positive or not divisible",
            1,
            (
                bad("an image_size that is not divisible", SIZE_NAMES, (10, 4), image_size=10, patch_size=4),
                bad("a height that is not divisible", SIZE_NAMES, (10, 4), image_size=(10, 8), patch_size=4),
                bad("a width that is not divisible", SIZE_NAMES, (10, 4), image_size=(8, 10), patch_size=4),
                bad("a patch_size of zero", PATCH_NAMES, (0,), patch_size=0),
                bad("a negative patch_size", PATCH_NAMES, (-2,), patch_size=-2),
                bad("an image_size of zero", SIZE_NAMES, (0,), image_size=0),
                bad("a negative height", SIZE_NAMES, (-8,), image_size=(-8, 8)),
            ),
            CONTRACT,
            module_start,
        ),
    ),
    mistakes=(
        Mistake("forgot the [CLS] token's position", edited(PatchEmbedding, ("count + 1, dim", "count, dim"), ("return torch.cat([cls, tokens], dim=1) + self.pos_embed", "return torch.cat([cls, tokens + self.pos_embed], dim=1)")), "E_pos has N + 1 rows: the [CLS] token has a position embedding too. Join first, then add."),
        Mistake("left the position embedding out of the parameters", edited(PatchEmbedding, ("self.pos_embed = nn.Parameter(torch.randn(1, count + 1, dim) * 0.02)", "self.register_buffer('pos_embed', torch.randn(1, count + 1, dim) * 0.02)")), "A buffer or a plain tensor is not trained. Wrap it in `nn.Parameter`."),
        Mistake("stored cls_token as a plain tensor", edited(PatchEmbedding, ("nn.Parameter(torch.zeros(1, 1, dim))", "torch.zeros(1, 1, dim)")), "A plain tensor is neither trained nor saved nor moved to the GPU. Wrap it in `nn.Parameter`."),
        Mistake("froze the position embedding", edited(PatchEmbedding, ("torch.randn(1, count + 1, dim) * 0.02)", "torch.randn(1, count + 1, dim) * 0.02, requires_grad=False)")), "1-D position embeddings are learned in ViT: leave `requires_grad` at its default."),
        Mistake("left the bias out", edited(PatchEmbedding, ("stride=patch_size)", "stride=patch_size, bias=False)")), "The projection has a bias: leave `bias` at its default."),
        Mistake("made one [CLS] token for every patch", edited(PatchEmbedding, ("torch.zeros(1, 1, dim)", "torch.zeros(1, count, dim)")), "There is one [CLS] token, of shape (1, 1, D)."),
        Mistake("started cls_token at random", edited(PatchEmbedding, ("torch.zeros(1, 1, dim)", "torch.randn(1, 1, dim)")), "The contract starts cls_token at zero, as the authors' code does."),
        Mistake("started pos_embed with standard deviation 1", edited(PatchEmbedding, (" * 0.02", "")), "With standard deviation 1 the positions drown the patches at the start. Scale the normal values by 0.02."),
        Mistake("started pos_embed at zero", edited(PatchEmbedding, ("torch.randn(1, count + 1, dim) * 0.02", "torch.zeros(1, count + 1, dim)")), "The contract starts pos_embed with small random values: normal, standard deviation 0.02."),
        Mistake("started pos_embed from a uniform distribution", edited(PatchEmbedding, ("torch.randn(1, count + 1, dim) * 0.02", "(torch.rand(1, count + 1, dim) - 0.5) * 0.02 * 12**0.5")), "`torch.rand` is uniform, `torch.randn` is normal."),
        Mistake("never added the position embedding", edited(PatchEmbedding, (", dim=1) + self.pos_embed", ", dim=1)")), "pos_embed is made but not used in forward."),
        Mistake("appended the [CLS] token at the end", edited(PatchEmbedding, ("[cls, tokens]", "[tokens, cls]")), "The [CLS] token comes first."),
        Mistake("reshaped the convolution's output without moving axes", edited(PatchEmbedding, (".flatten(2).transpose(1, 2)", ".reshape(images.shape[0], -1, self.proj.out_channels)")), "The convolution gives (B, D, H/P, W/P). A reshape to (B, N, D) mixes channels and places: flatten the last two axes, then transpose."),
        Mistake("read the patches column by column", edited(PatchEmbedding, ("self.proj(images).flatten", "self.proj(images).transpose(2, 3).flatten")), "Patches come row by row: flatten (H/P, W/P) in that order."),
        Mistake("took image_size as (width, height)", edited(PatchEmbedding, ("height, width = (image_size, image_size) if isinstance(image_size, int) else image_size", "width, height = (image_size, image_size) if isinstance(image_size, int) else image_size")), "image_size is (height, width), the order of the axes of an image tensor."),
        Mistake("accepted only an int as image_size", edited(PatchEmbedding, ("height, width = (image_size, image_size) if isinstance(image_size, int) else image_size", "height = width = int(image_size)")), "image_size is an int or a pair (height, width)."),
        Mistake("added the position embedding twice", edited(PatchEmbedding, (") + self.pos_embed", ") + self.pos_embed + self.pos_embed")), "Equation 1 adds E_pos once."),
        Mistake("detached the tokens", edited(PatchEmbedding, (".flatten(2).transpose", ".detach().flatten(2).transpose")), "No gradient reaches the projection, so E would never be trained."),
        Mistake("detached the position embedding", edited(PatchEmbedding, ("+ self.pos_embed", "+ self.pos_embed.detach()")), "No gradient reaches pos_embed, so it would never be learned."),
        Mistake("made a float32 [CLS] token in forward", edited(PatchEmbedding, ("cls = self.cls_token.expand(images.shape[0], -1, -1)", "cls = torch.zeros(images.shape[0], 1, self.cls_token.shape[-1]) + self.cls_token")), "A tensor made in forward lives on the CPU in float32. Use the parameter itself, expanded."),
        Mistake("normalised the images in place", edited(PatchEmbedding, ("tokens = self.proj(images)", "if not images.requires_grad:\n            images.mul_(1.5).div_(1.5).clamp_(-2, 2)\n        tokens = self.proj(images)")), "Your module writes into the images it was given."),
        Mistake("did not compare the size of the images", edited(PatchEmbedding, ("if images.shape[-2:] != self.image_size", "if False")), "A convolution takes any size: another shape with the same number of patches passes unnoticed, and extra rows are dropped. Compare height and width in forward."),
        Mistake("compared only the number of patches", edited(PatchEmbedding, ("if images.shape[-2:] != self.image_size", "if images.shape[-2] * images.shape[-1] != self.image_size[0] * self.image_size[1]")), "2 x 16 pixels hold as many patches as 4 x 8, but their positions mean other places. Compare height and width."),
        Mistake("let a size that is not divisible through", edited(PatchEmbedding, ("if height % patch_size != 0 or width % patch_size != 0", "if False")), "Check in the constructor that height and width are divisible by patch_size and raise a ValueError that names them."),
        Mistake("checked only the height", edited(PatchEmbedding, ("if height % patch_size != 0 or width % patch_size != 0", "if height % patch_size != 0")), "The height is checked, the width is not. Both have to be divisible by P."),
        Mistake("wrote an error message without the value", edited(PatchEmbedding, ("image_size {image_size} is not divisible by patch_size {patch_size}", "image_size is not divisible by patch_size"), ("patch_size must be positive, got {patch_size}", "patch_size must be positive")), "Your ValueError does not give the value that is wrong."),
    ),
)  # fmt: skip

ASSIGNMENT = Assignment(
    name="patch_embedding",
    title="Patch embedding, [CLS] and z_0",
    chapter="02_patch_embedding",
    exercises=(EMBED_PATCHES, PREPEND_CLS_TOKEN, ADD_POSITION_EMBEDDING, PATCH_EMBEDDING),
)
