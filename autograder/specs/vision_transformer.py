"""Chapter 6: the whole Vision Transformer, its pooling, its parameters and its cost."""

from collections.abc import Callable
from typing import Any

import torch

from autograder.judge import error_name
from autograder.probes import (
    Inputs,
    Outputs,
    built,
    gradients,
    manners,
    module_gradients,
    module_manners,
    module_start,
    module_value,
)
from autograder.reference.vision_transformer import (
    VisionTransformer,
    macs_per_image,
    parameter_count,
    pool_tokens,
)
from autograder.spec import Assignment, Draw, Exercise, Group, Mistake, edited
from autograder.specs.encoder import F32, F64, HEAD_NAMES, bad, block_weights, but, module_training, runs
from autograder.specs.patch_embedding import PATCH_NAMES, SIZE_NAMES, has_parameters

MODEL, START, POOL = "From images to logits", "How the parameters start", "[CLS] or the mean of the patches"
DEEP, DROPOUT = "Block after block", "Dropout in the whole model"
PARAMETERS, MACS = "Counting parameters", "Counting multiply-accumulates"
CONTRACT = "What every answer owes its caller"
ALMOST_ALL = 1 - 1e-9  # a dropout that leaves nothing, without the division by zero that 1 may bring


def model(
    image_size: int | tuple[int, int],
    patch: int,
    channels: int,
    *,
    dim: int = 8,
    depth: int = 1,
    heads: int = 2,
    hidden: int = 6,
    classes: int = 5,
    batch: int = 2,
    scale: float = 1.0,
    branch: float = 1.0,
    steep: float = 8.0,
    dtype: torch.dtype = F32,
    **options: Any,
) -> Callable[[Draw], Inputs]:
    """Draw a model with given parameters, and images for it.

    `scale` is the size of the tokens, `branch` and `steep` are those of `block_weights`.
    """

    def draw_model(draw: Draw) -> Inputs:
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        count = (height // patch) * (width // patch)
        inside = (channels * patch**2) ** 0.5
        state = {
            "cls_token": draw.normal(1, 1, dim, std=scale, dtype=dtype),
            "pos_embed": draw.normal(1, count + 1, dim, std=scale, dtype=dtype),
            "patch_embed.proj.weight": draw.normal(
                dim, channels, patch, patch, std=scale / inside, dtype=dtype
            ),
            "patch_embed.proj.bias": draw.normal(dim, std=scale, dtype=dtype),
        }
        for i in range(depth):
            block = block_weights(draw, dim, hidden, dtype=dtype, branch=branch * scale, steep=steep)
            state |= {f"blocks.{i}.{name}": value for name, value in block.items()}
        state |= {
            "norm.weight": 1 + draw.normal(dim, std=0.5, dtype=dtype),
            "norm.bias": draw.normal(dim, std=0.5, dtype=dtype),
            "head.weight": draw.normal(classes, dim, dtype=dtype),
            "head.bias": draw.normal(classes, dtype=dtype),
        }
        sizes = {"dim": dim, "depth": depth, "num_heads": heads, "mlp_dim": hidden}
        return {
            "image_size": image_size,
            "patch_size": patch,
            "in_channels": channels,
            "num_classes": classes,
            **sizes,
            **options,
            "_state": state,
            "_forward": {"images": draw.normal(batch, channels, height, width, dtype=dtype)},
        }

    return draw_model


def new(**changed: Any) -> Callable[[Draw], Inputs]:
    """A new model, nothing loaded: enough positions for their spread to be measured."""
    sizes = {"image_size": 32, "patch_size": 1, "in_channels": 3, "num_classes": 5}
    return lambda draw: {**sizes, "dim": 6, "depth": 1, "num_heads": 3, "mlp_dim": 8, **changed}


def bare(rate: float, pool: str) -> Callable[[Draw], Inputs]:
    """A model of one patch whose block adds nothing and whose head is the identity: it shows dropout of z_0 alone."""
    make = model(2, 2, 3, dim=32, classes=32, batch=64, pool=pool, dropout=rate)

    def draw_bare(draw: Draw) -> Inputs:
        inputs = make(draw)
        state = inputs["_state"]
        for name in ("blocks.0.attn.proj", "blocks.0.mlp.fc2"):
            state[f"{name}.weight"].zero_()
            state[f"{name}.bias"].zero_()
        for name, value in {"pos_embed": 0.0, "norm.weight": 1.0, "norm.bias": 0.0, "head.bias": 0.0}.items():
            state[name].fill_(value)
        state["head.weight"] = torch.eye(32)
        return inputs

    return draw_bare


def tokens(batch: int, count: int, dim: int, pool: str, dtype: torch.dtype = F32) -> Callable[[Draw], Inputs]:
    """Draw tokens."""
    return lambda draw: {"tokens": draw.normal(batch, count, dim, dtype=dtype), "pool": pool}


def published(patch: int, dim: int, depth: int, hidden: int) -> Callable[[Draw], Inputs]:
    """The sizes of a model of the paper, for 224 x 224 pixels in colour and 1000 classes."""
    image = {"image_size": 224, "patch_size": patch, "in_channels": 3, "num_classes": 1000}
    return lambda draw: {**image, "dim": dim, "depth": depth, "mlp_dim": hidden}


def sizes(rows: int, columns: int = 0, **changed: Any) -> Callable[[Draw], Inputs]:
    """Draw the sizes of a model for a grid of patches; without `columns` the image size is one number."""

    def draw_sizes(draw: Draw) -> Inputs:
        patch = draw.integer(2, 9)
        drawn = {
            "image_size": (rows * patch, columns * patch) if columns else rows * patch,
            "patch_size": patch,
            "in_channels": draw.integer(2, 6),
            "num_classes": draw.integer(2, 40),
            "dim": draw.integer(5, 60),
            "depth": draw.integer(2, 9),
            "mlp_dim": draw.integer(61, 99),
        }
        return {**drawn, **changed}

    return draw_sizes


# Probes


def used_later(answer: Callable[..., Any], inputs: Inputs) -> Outputs:
    """The parts of a model that later assignments read."""
    blocks = list(built(answer, inputs).blocks)
    return {
        "the number of blocks": len(blocks),
        "blocks[i].attn.num_heads": [int(block.attn.num_heads) for block in blocks],
        "blocks[i].attn.qkv.weight": [block.attn.qkv.weight for block in blocks],
        "blocks[i].norm1.weight": [block.norm1.weight for block in blocks],
    }


def reach(answer: Callable[..., Any], inputs: Inputs) -> Outputs:
    """Which patches of each image change its logits."""
    module = built(answer, inputs)
    images, size = inputs["_forward"]["images"], inputs["patch_size"]
    before = module(images.clone())
    changes = []
    for top in range(0, images.shape[2], size):
        for left in range(0, images.shape[3], size):
            other = images.clone()
            other[:, :, top : top + size, left : left + size] += 1
            changes.append((module(other) - before).abs().amax(dim=1) > 1e-7)
    return {"which patches change the logits": torch.stack(changes, dim=1)}


# Judges


def starts_as_told(yours: dict[str, Any], expected: dict[str, Any], inputs: dict[str, Any]) -> str | None:
    """Judge initial values: cls_token and head zero, pos_embed normal with mean 0 and standard deviation 0.02."""
    problem = has_parameters(yours, expected, inputs)
    if problem:
        return problem
    for name in ("cls_token", "head.weight", "head.bias"):
        if yours["start"][name].any():
            return f"{name} does not start at zero"
    values = yours["start"]["pos_embed"].double()
    mean, deviation = float(values.mean()), float(values.std())
    if not (abs(mean) < 0.0015 and abs(deviation - 0.02) < 0.001):
        return f"pos_embed starts with mean {mean:.4f} and standard deviation {deviation:.4f}, expected 0 and 0.02"
    if not 2.6 < float(((values - mean) / deviation).pow(4).mean()) < 3.4:
        return "pos_embed does not start from a normal distribution"
    return None


def drops_positions(yours: dict[str, Any], expected: dict[str, Any], inputs: dict[str, Any]) -> str | None:
    """Judge the share of values of z_0 that are dropped, from layer norms of it: zeros become equal values there."""
    if "raised" in yours:
        return f"your code stopped with {error_name(yours['raised'])}"
    (want,) = expected.values()
    got = yours.get("the output in training mode")
    if not isinstance(got, torch.Tensor) or got.shape != want.shape:
        return "the output has another shape"
    equal = (got[:, :, None] == got[:, None, :]).sum(dim=2).amax(dim=1)
    share, rate = float(equal.double().mean()) / got.shape[1], inputs["dropout"]
    if abs(share - rate) <= 0.05:
        return None
    return (
        f"{100 * share:.0f} % of the values of z_0 are dropped in training mode, expected {100 * rate:.0f} %"
    )


POOL_TOKENS = Exercise(
    name="pool_tokens",
    points=5,
    reference=pool_tokens,
    minutes=5,
    difficulty=1,
    importance=4,
    cases=(
        Group('returns the [CLS] token for "cls"', 1, (tokens(2, 5, 4, "cls"), tokens(1, 2, 3, "cls"), tokens(3, 3, 3, "cls")), POOL),
        Group('returns the mean of the patch tokens for "gap", without [CLS]', 1, (tokens(2, 5, 4, "gap"), tokens(1, 2, 3, "gap"), tokens(3, 3, 3, "gap")), POOL),
        Group("lets gradients through to the tokens", 1, (tokens(2, 5, 3, "gap"), tokens(2, 5, 3, "cls")), CONTRACT, gradients),
        Group("keeps dtype and device, leaves its input alone and remembers nothing", 1, (tokens(2, 5, 3, "gap", F64), tokens(2, 5, 3, "cls", F64), tokens(2, 5, 3, "gap")), CONTRACT, manners),
        Group(
            "refuses a pool that it does not know",
            1,
            (
                bad(tokens(2, 5, 3, "max"), "an unknown pool", ("pool", "pooling"), ("max",)),
                bad(tokens(2, 5, 3, "average"), "an unknown pool", ("pool", "pooling"), ("average",)),
            ),
            CONTRACT,
        ),
    ),
    mistakes=(
        Mistake("took the last token", edited(pool_tokens, ("tokens[:, 0]", "tokens[:, -1]")), "[CLS] stands first, at index 0."),
        Mistake("took the first image", edited(pool_tokens, ("tokens[:, 0]", "tokens[0]")), "`tokens[0]` is the first image. The token axis is the second one: `tokens[:, 0]`."),
        Mistake("took the first channel", edited(pool_tokens, ("tokens[:, 0]", "tokens[:, :, 0]")), "The last axis holds the D values of a token. The token axis is the second one."),
        Mistake("kept the token axis", edited(pool_tokens, ("tokens[:, 0]", "tokens[:, :1]"), ("mean(dim=1)", "mean(dim=1, keepdim=True)")), "The result is (B, D): the token axis is gone."),
        Mistake("swapped cls and gap", edited(pool_tokens, ('"cls"', '"CLS"'), ('"gap"', '"cls"'), ('"CLS"', '"gap"')), "\"cls\" is the first token, \"gap\" the mean of the others."),
        Mistake("averaged over [CLS] too", edited(pool_tokens, ("tokens[:, 1:].mean", "tokens.mean")), "Global average pooling is the mean of the patch tokens. [CLS] is none of them: leave index 0 out."),
        Mistake("left the last patch out", edited(pool_tokens, ("tokens[:, 1:].mean", "tokens[:, :-1].mean")), "[CLS] stands first: leave index 0 out, not the last one."),
        Mistake("left the last patch out as well", edited(pool_tokens, ("tokens[:, 1:].mean(dim=1)", "tokens[:, 1:-1].sum(dim=1) / (tokens.shape[1] - 2)")), "`1:-1` ends before the last patch. `1:` takes all of them."),
        Mistake("summed the patches", edited(pool_tokens, (".mean(dim=1)", ".sum(dim=1)")), "The mean does not grow with the number of patches; the sum does."),
        Mistake("divided by the number of all tokens", edited(pool_tokens, (".mean(dim=1)", ".sum(dim=1) / tokens.shape[1]")), "There are N patches among N + 1 tokens: divide by N."),
        Mistake("took the maximum", edited(pool_tokens, (".mean(dim=1)", ".amax(dim=1)")), "That is max pooling. GAP is the mean."),
        Mistake("averaged over the width", edited(pool_tokens, ("tokens[:, 1:].mean(dim=1)", "tokens.mean(dim=2)")), "The mean runs over tokens, axis 1, not over the values of a token."),
        Mistake("took any other pool for gap", edited(pool_tokens, ('if pool == "gap"', "if True")), "A typing error in `pool` would go unnoticed. Raise a ValueError that names it."),
        Mistake("returned None for an unknown pool", edited(pool_tokens, ("raise ValueError(f\"pool must be 'cls' or 'gap', got {pool!r}\")", "return None")), "Without an error the next layer fails far from the cause. Raise a ValueError."),
        Mistake("let a KeyError through", edited(pool_tokens, ("raise ValueError(f\"pool must be 'cls' or 'gap', got {pool!r}\")", "raise KeyError(pool)")), "A KeyError says nothing about what is allowed. Raise a ValueError that names `pool` and its value."),
        Mistake("wrote an error message without the value", edited(pool_tokens, (", got {pool!r}", "")), "Your ValueError does not give the value that is wrong."),
        Mistake("cut the graph with detach", edited(pool_tokens, ("tokens[:, 1:].mean", "tokens[:, 1:].detach().mean")), "No gradient reaches the patch tokens. Leave `detach` out."),
        Mistake("converted to float32", edited(pool_tokens, (".mean(dim=1)", ".mean(dim=1).float()")), "float64 tokens come back as float32. Keep the dtype of the input."),
    ),
)  # fmt: skip

BLOCKS = "nn.Sequential(*(EncoderBlock(dim, num_heads, mlp_dim, dropout) for _ in range(depth)))"
EMBED = "self.dropout(torch.cat([cls, tokens], dim=1) + self.pos_embed)"

VISION_TRANSFORMER = Exercise(
    name="VisionTransformer",
    points=17,
    reference=VisionTransformer,
    minutes=45,
    difficulty=4,
    importance=5,
    probe=module_value,
    forbid=frozenset({"torch.nn.TransformerEncoder", "torch.nn.TransformerEncoderLayer"}),
    operators=frozenset({"_transformer_encoder_layer_fwd"}),
    cases=(
        Group("has the parameters of the contract, all trainable", 1, (new(image_size=8, patch_size=2, depth=2), new(image_size=(4, 6), patch_size=2, in_channels=1, dim=4, num_heads=2, pool="gap", dropout=0.1)), MODEL, module_start, has_parameters),
        Group("computes logits with one block", 1, (model(4, 2, 1, heads=1), model(6, 2, 3)), MODEL),
        Group("runs through all blocks in order", 1, (model(4, 2, 3, depth=2), model(4, 2, 3, depth=3)), DEEP),
        Group("works for images that are not square, of one patch and of other channel counts", 1, (model((4, 8), 2, 3), model((6, 3), 3, 2), model(4, 4, 5, batch=1), model((2, 6), 2, 3, depth=2, dim=12, heads=3, hidden=12, classes=1)), MODEL),
        Group("lets every patch change the logits", 1, (model((4, 6), 2, 3, dtype=F64), model((4, 6), 2, 3, dtype=F64, pool="gap")), MODEL, reach),
        Group("averages the patch tokens after the final norm with pool=\"gap\"", 1, (model(4, 2, 3, pool="gap"), model((2, 6), 2, 3, depth=2, pool="gap")), POOL),
        Group("starts with cls_token and head at zero and pos_embed normal with standard deviation 0.02", 1, (new(),), START, module_start, starts_as_told),
        Group("has the attributes that later assignments use", 1, (model(4, 2, 3, depth=2), model(4, 2, 3, dim=12, heads=3)), DEEP, used_later),
        Group("uses an eps of 1e-6 in every norm and the exact GELU", 1, (model(4, 2, 3, dtype=F64, scale=1e3, branch=0.1), model(4, 2, 3, depth=2, dtype=F64, scale=1e-3, steep=1e5), model(4, 2, 3, dtype=F64, scale=1e-3, steep=1e5, pool="gap")), MODEL),
        Group("drops nothing in evaluation mode", 1, (model(4, 2, 3, dropout=0.5), model(4, 2, 3, dropout=0.5, pool="gap")), DROPOUT),
        Group("drops in training mode after adding positions and in every block, and never after the blocks", 1, (model(4, 2, 3), model(4, 2, 3, depth=2, dropout=ALMOST_ALL), model(4, 2, 3, pool="gap", dropout=ALMOST_ALL)), DROPOUT, module_training),
        Group("drops the share of z_0 that it is told to", 1, (bare(0.3, "cls"), bare(0.6, "gap")), DROPOUT, module_training, drops_positions),
        Group("lets gradients through to images and all parameters", 1, (model((4, 6), 2, 3, depth=2, steep=1e3), model((4, 6), 2, 3, steep=1e3, pool="gap")), MODEL, module_gradients),
        Group("keeps dtype and device, leaves images and parameters alone and remembers nothing", 1, (model((4, 6), 2, 3, dtype=F64, scale=1e3, steep=1e5), model((4, 6), 2, 3)), CONTRACT, module_manners),
        Group(
            "refuses images of another size or channel count",
            1,
            (
                but(model((4, 8), 2, 3), "images that are larger", _forward=lambda draw: {"images": draw.normal(2, 3, 6, 8)}),
                but(model((4, 8), 2, 3), "images with height and width swapped", _forward=lambda draw: {"images": draw.normal(2, 3, 8, 4)}),
                but(model((4, 8), 2, 3), "images with one more row, which a convolution drops", _forward=lambda draw: {"images": draw.normal(2, 3, 5, 8)}),
                but(model((4, 8), 2, 3), "images with one channel", _forward=lambda draw: {"images": draw.normal(2, 1, 4, 8)}),
            ),
            CONTRACT,
        ),
        Group(
            "refuses sizes that are not positive or not divisible",
            1,
            (
                bad(new(), "an image_size that is not divisible", SIZE_NAMES, (10, 4), image_size=10, patch_size=4),
                bad(new(), "a height that is not divisible", SIZE_NAMES, (10, 4), image_size=(10, 8), patch_size=4),
                bad(new(), "a width that is not divisible", SIZE_NAMES, (10, 4), image_size=(8, 10), patch_size=4),
                bad(new(), "a patch_size of zero", PATCH_NAMES, (0,), patch_size=0),
                bad(new(), "a negative image_size", SIZE_NAMES, (-8,), image_size=-8),
            ),
            CONTRACT,
            module_start,
        ),
        Group(
            "refuses an unknown pool and heads that do not divide the width",
            1,
            (
                bad(model(4, 2, 3), "an unknown pool", ("pool", "pooling"), ("max",), pool="max"),
                bad(model(4, 2, 3), "an unknown pool", ("pool", "pooling"), ("average",), pool="average"),
                bad(model(4, 2, 3, dim=10), "a dim that is not divisible by num_heads", HEAD_NAMES, (4, 10), num_heads=4),
            ),
            CONTRACT,
            runs,
        ),
    ),
    mistakes=(
        Mistake("called the blocks otherwise", edited(VisionTransformer, ("self.blocks", "self.layers")), "Saved weights are found by name. The contract's names are timm's: patch_embed.proj, blocks.0 …, norm, head."),
        Mistake("kept the blocks in a plain list", edited(VisionTransformer, (BLOCKS, "[EncoderBlock(dim, num_heads, mlp_dim, dropout) for _ in range(depth)]"), ("z = self.blocks(z)", "for block in self.blocks:\n            z = block(z)")), "A plain list hides its modules: their parameters are neither trained nor saved. Use `nn.ModuleList` or `nn.Sequential`."),
        Mistake("used one block many times", edited(VisionTransformer, (BLOCKS, "nn.Sequential(*[EncoderBlock(dim, num_heads, mlp_dim, dropout)] * depth)")), "`[block] * depth` holds the same block depth times. Every layer has parameters of its own: make a new block each time."),
        Mistake("built one block too few", edited(VisionTransformer, ("range(depth)", "range(depth - 1)")), "depth counts the encoder blocks; there is one for each."),
        Mistake("forgot the position of [CLS]", edited(VisionTransformer, ("count + 1, dim", "count, dim"), ("torch.cat([cls, tokens], dim=1) + self.pos_embed", "torch.cat([cls, tokens + self.pos_embed], dim=1)")), "E_pos has N + 1 rows: [CLS] has a position too."),
        Mistake("left the bias of the head out", edited(VisionTransformer, ("self.head = nn.Linear(dim, num_classes)", "self.head = nn.Linear(dim, num_classes, bias=False)"), ("        nn.init.zeros_(self.head.bias)\n", "")), "The head has a bias, which starts at zero."),
        Mistake("left the final norm out", edited(VisionTransformer, ("pool_tokens(self.norm(z), self.pool)", "pool_tokens(z, self.pool)")), "Equation 4: y = LN(z_L⁰). A pre-norm encoder ends with sums, so one norm is due after the last block."),
        Mistake("ran the blocks in reverse", edited(VisionTransformer, ("z = self.blocks(z)", "for block in reversed(list(self.blocks)):\n            z = block(z)")), "blocks.0 comes first."),
        Mistake("ran the first block only", edited(VisionTransformer, ("self.blocks(z)", "self.blocks[0](z)")), "All L blocks run, one after the other."),
        Mistake("skipped the last block", edited(VisionTransformer, ("self.blocks(z)", "self.blocks[:-1](z) if len(self.blocks) > 1 else self.blocks(z)")), "All L blocks run; yours leaves the last one out."),
        Mistake("never added the position embedding", edited(VisionTransformer, (" + self.pos_embed)", ")")), "pos_embed is made but not used: without it the model cannot tell where a patch is."),
        Mistake("added positions once for each block", edited(VisionTransformer, ("z = self.blocks(z)", "for block in self.blocks:\n            z = block(z + self.pos_embed)")), "Equation 1 adds E_pos once, before the first block."),
        Mistake("appended [CLS] at the end", edited(VisionTransformer, ("[cls, tokens]", "[tokens, cls]")), "[CLS] comes first; its position is row 0 of E_pos."),
        Mistake("classified the last token", edited(VisionTransformer, ("pool_tokens(self.norm(z), self.pool)", "(self.norm(z)[:, -1] if self.pool == 'cls' else pool_tokens(self.norm(z), self.pool))")), "\"cls\" reads z_L⁰, the first token."),
        Mistake("read the patches column by column", edited(VisionTransformer, ("self.patch_embed(images).flatten", "self.patch_embed(images).transpose(2, 3).flatten")), "Patches come row by row, as in chapter 1: flatten (H/P, W/P) in that order."),
        Mistake("reshaped the convolution's output without moving axes", edited(VisionTransformer, (".flatten(2).transpose(1, 2)", ".reshape(images.shape[0], -1, self.cls_token.shape[-1])")), "The convolution gives (B, D, H/P, W/P). Flatten the last two axes, then swap them with D; a plain reshape mixes channels and places."),
        Mistake("took image_size as (width, height)", edited(VisionTransformer, ("height, width = (image_size, image_size)", "width, height = (image_size, image_size)")), "image_size is (height, width), the order of the axes of an image tensor."),
        Mistake("ignored pool", edited(VisionTransformer, ("self.norm(z), self.pool", "self.norm(z), 'cls'")), "pool=\"gap\" gives the same logits as \"cls\". Use the argument."),
        Mistake("averaged over [CLS] too", edited(VisionTransformer, ("pool_tokens(self.norm(z), self.pool)", "(self.norm(z)[:, 0] if self.pool == 'cls' else self.norm(z).mean(dim=1))")), "GAP is the mean of the patch tokens: leave [CLS] out."),
        Mistake("pooled before the final norm", edited(VisionTransformer, ("pool_tokens(self.norm(z), self.pool)", "self.norm(pool_tokens(z, self.pool))")), "For [CLS] the order makes no difference, for the mean it does: normalise all tokens, then average."),
        Mistake("started cls_token at random", edited(VisionTransformer, ("nn.Parameter(torch.zeros(1, 1, dim))", "nn.Parameter(torch.randn(1, 1, dim) * 0.02)")), "The contract starts cls_token at zero, as the authors' code does."),
        Mistake("started pos_embed with standard deviation 1", edited(VisionTransformer, ("torch.randn(1, count + 1, dim) * 0.02", "torch.randn(1, count + 1, dim)")), "With standard deviation 1 the positions drown the patches at the start. Scale the normal values by 0.02."),
        Mistake("started pos_embed at zero", edited(VisionTransformer, ("torch.randn(1, count + 1, dim) * 0.02", "torch.zeros(1, count + 1, dim)")), "The contract starts pos_embed with small random values: normal, standard deviation 0.02."),
        Mistake("started the head at random", edited(VisionTransformer, ("        nn.init.zeros_(self.head.weight)\n", "")), "The head starts at zero, so that the first logits are zero and the loss is log K."),
        Mistake("left the head's bias at random", edited(VisionTransformer, ("        nn.init.zeros_(self.head.bias)\n", "")), "The head's weight starts at zero, its bias does not. Both should."),
        Mistake("left the final norm's eps at its default", edited(VisionTransformer, ("nn.LayerNorm(dim, eps=1e-6)", "nn.LayerNorm(dim)")), "`nn.LayerNorm` takes 1e-5 unless told otherwise. The final norm has 1e-6 too."),
        Mistake("gave dropout to the blocks only", edited(VisionTransformer, (EMBED, EMBED.replace("self.dropout", ""))), "Dropout follows the addition of the position embedding too."),
        Mistake("did not hand dropout on to the blocks", edited(VisionTransformer, ("mlp_dim, dropout) for", "mlp_dim) for")), "The blocks are built without `dropout`, so nothing is dropped in them."),
        Mistake("dropped before adding positions", edited(VisionTransformer, (EMBED, "self.dropout(torch.cat([cls, tokens], dim=1)) + self.pos_embed")), "Dropout follows the addition: drop the sum."),
        Mistake("dropped the patches and the sum", edited(VisionTransformer, ("transpose(1, 2)  #", "transpose(1, 2)\n        tokens = self.dropout(tokens)  #")), "The patch tokens are dropped twice. Dropout comes once, after the position embedding is added."),
        Mistake("dropped the pooled token", edited(VisionTransformer, ("self.head(pool_tokens(self.norm(z), self.pool))", "self.head(self.dropout(pool_tokens(self.norm(z), self.pool)))")), "There is no dropout between the last block and the head."),
        Mistake("dropped in evaluation mode too", edited(VisionTransformer, ("self.dropout = nn.Dropout(dropout)", "self.rate = dropout"), (EMBED, "nn.functional.dropout(torch.cat([cls, tokens], dim=1) + self.pos_embed, self.rate)")), "`F.dropout` drops always, unless it gets `training=self.training`. `nn.Dropout` knows the mode by itself."),
        Mistake("ignored the rate after adding positions", edited(VisionTransformer, ("self.dropout = nn.Dropout(dropout)", "self.dropout = nn.Dropout(0.1 if 0 < dropout < 0.99 else dropout)")), "The rate after adding positions is a constant. Use the argument `dropout`."),
        Mistake("detached the tokens", edited(VisionTransformer, ("self.patch_embed(images).flatten", "self.patch_embed(images).detach().flatten")), "No gradient reaches the projection, so E would never be trained."),
        Mistake("returned probabilities", edited(VisionTransformer, ("return self.head(pool_tokens(self.norm(z), self.pool))", "return self.head(pool_tokens(self.norm(z), self.pool)).softmax(dim=-1)")), "The model returns logits. The loss function applies the softmax."),
        Mistake("returned the features", edited(VisionTransformer, ("return self.head(pool_tokens(self.norm(z), self.pool))", "return pool_tokens(self.norm(z), self.pool)")), "The last step is missing: the head maps D features to K logits."),
        Mistake("did not compare the size of the images", edited(VisionTransformer, ("if images.shape[-2:] != self.image_size", "if False")), "A convolution takes any size: swapped sides pass unnoticed, and an extra row is dropped. Compare height and width in forward."),
        Mistake("let a size that is not divisible through", edited(VisionTransformer, ("count = num_patches(height, width, patch_size)", "count = (height // patch_size) * (width // patch_size)")), "Check in the constructor that height and width are positive and divisible by patch_size; raise a ValueError that names them."),
        Mistake("took any other pool for gap", edited(VisionTransformer, ('if pool not in ("cls", "gap")', "if False"), ("pool_tokens(self.norm(z), self.pool)", "pool_tokens(self.norm(z), 'cls' if self.pool == 'cls' else 'gap')")), "A typing error in `pool` would go unnoticed. Raise a ValueError that names it."),
    ),
)  # fmt: skip


def too_small(make: Callable[[Draw], Inputs]) -> tuple[Callable[[Draw], Inputs], ...]:
    """Sizes that a ValueError must refuse."""
    return (
        bad(make, "an image_size that is not divisible", SIZE_NAMES, (10, 4), image_size=10, patch_size=4),
        bad(make, "a width that is not divisible", SIZE_NAMES, (10, 4), image_size=(8, 10), patch_size=4),
        bad(make, "a patch_size of zero", PATCH_NAMES, (0,), patch_size=0),
        bad(make, "a negative image_size", SIZE_NAMES, (-8,), image_size=-8, patch_size=4),
    )


HUGE = {"dim": 3 * 10**10, "mlp_dim": 10**11, "depth": 1000}

PARAMETER_COUNT = Exercise(
    name="parameter_count",
    points=5,
    reference=parameter_count,
    minutes=20,
    difficulty=2,
    importance=3,
    cases=(
        Group("counts the parameters of B/16, L/16, H/14 and Ti/16", 1, (published(16, 768, 12, 3072), published(16, 1024, 24, 4096), published(14, 1280, 32, 5120), published(16, 192, 12, 768)), PARAMETERS),
        Group("counts the parameters of models of any size", 1, (sizes(2), sizes(3), sizes(1)), PARAMETERS),
        Group("counts for images that are not square", 1, (sizes(2, 5), sizes(4, 3)), PARAMETERS),
        Group("counts in closed form, for models too large to build", 1, (sizes(3, **HUGE),), PARAMETERS),
        Group("refuses sizes that are not positive or not divisible", 1, too_small(sizes(2)), CONTRACT),
    ),
    mistakes=(
        Mistake("forgot D parameters of the embedding", edited(parameter_count, ("in_channels * dim + dim + dim", "in_channels * dim + dim")), "You are D too low. Three parts of the embedding have D parameters: the bias of the patch projection, [CLS], and the position of [CLS]."),
        Mistake("forgot the position embedding", edited(parameter_count, ("+ tokens * dim", "")), "1-D positions are learned: (N + 1) · D parameters."),
        Mistake("took P for P² in the projection", edited(parameter_count, ("patch_size**2", "patch_size")), "A patch holds P · P · C values."),
        Mistake("took the number of channels to be 3", edited(parameter_count, ("* in_channels", "* 3")), "Use in_channels: not every image is in colour."),
        Mistake("forgot the bias of qkv", edited(parameter_count, ("dim * 3 * dim + 3 * dim", "dim * 3 * dim")), "qkv has 3D biases."),
        Mistake("counted query, key and value once", edited(parameter_count, ("dim * 3 * dim + 3 * dim", "dim * dim + dim")), "qkv makes queries, keys and values: 3D outputs from D inputs."),
        Mistake("forgot attn.proj", edited(parameter_count, ("+ 3 * dim + dim * dim + dim", "+ 3 * dim")), "After the heads are joined, attn.proj maps D to D: D² + D more."),
        Mistake("forgot the bias of attn.proj", edited(parameter_count, ("+ dim * dim + dim", "+ dim * dim")), "attn.proj has D biases."),
        Mistake("forgot the biases of the MLP", edited(parameter_count, ("dim * mlp_dim + mlp_dim + mlp_dim * dim + dim", "2 * dim * mlp_dim")), "fc1 has M biases and fc2 has D."),
        Mistake("gave both MLP layers the same bias", edited(parameter_count, ("dim * mlp_dim + mlp_dim + mlp_dim * dim + dim", "2 * dim * mlp_dim + 2 * mlp_dim")), "A bias has one entry for each output: M for fc1, D for fc2."),
        Mistake("took the MLP to be four times as wide", edited(parameter_count, ("dim * mlp_dim + mlp_dim + mlp_dim * dim + dim", "dim * 4 * dim + 4 * dim + 4 * dim * dim + dim")), "mlp_dim is given; it need not be 4D."),
        Mistake("counted one norm a block", edited(parameter_count, ("(norm + attention + norm + mlp)", "(norm + attention + mlp)")), "A block has two norms, norm1 and norm2."),
        Mistake("forgot the norms' biases", edited(parameter_count, ("norm = 2 * dim", "norm = dim")), "A layer norm has a weight and a bias: 2D."),
        Mistake("forgot the final norm", edited(parameter_count, (") + norm + head", ") + head")), "After the last block comes one more norm, with 2D parameters."),
        Mistake("forgot the head", edited(parameter_count, (" + norm + head", " + norm")), "The classifier counts too: D · K + K."),
        Mistake("forgot the bias of the head", edited(parameter_count, ("dim * num_classes + num_classes", "dim * num_classes")), "The head has K biases."),
        Mistake("counted the pre-logits layer", edited(parameter_count, ("return embedding", "return dim * dim + dim + embedding")), "The pre-logits layer of pre-training is not part of this model."),
        Mistake("forgot to multiply by the depth", edited(parameter_count, ("depth * (", "(")), "Every block has its own parameters: multiply by depth."),
        Mistake("took the image to be square", edited(parameter_count, ("num_patches(height, width, patch_size)", "num_patches(height, height, patch_size)")), "image_size may be (height, width). Count the patches along each side."),
        Mistake("returned a float", edited(parameter_count, ("return embedding", "return 1.0 * embedding")), "A count is a whole number. Use `//` where you divide."),
        Mistake("built the model and counted", "def parameter_count(image_size, patch_size, in_channels, num_classes, dim, depth, mlp_dim):\n    num_patches(*((image_size, image_size) if isinstance(image_size, int) else image_size), patch_size)\n    with torch.device('meta'):\n        model = VisionTransformer(image_size, patch_size, in_channels, num_classes, dim, depth, 1, mlp_dim)\n    return sum(parameter.numel() for parameter in model.parameters())", "The exercise asks for a formula: add up the terms yourself. A formula also answers for a model that no computer holds."),
        Mistake("let a size that is not divisible through", edited(parameter_count, ("num_patches(height, width, patch_size)", "(height // patch_size) * (width // patch_size)")), "10 pixels cannot be cut into patches of 4. Raise a ValueError that names both."),
    ),
)  # fmt: skip

MACS_PER_IMAGE = Exercise(
    name="macs_per_image",
    points=5,
    reference=macs_per_image,
    minutes=20,
    difficulty=3,
    importance=3,
    cases=(
        Group("counts the multiply-accumulates of B/16, L/16, H/14 and Ti/16", 1, (published(16, 768, 12, 3072), published(16, 1024, 24, 4096), published(14, 1280, 32, 5120), published(16, 192, 12, 768)), MACS),
        Group("counts for models of any size", 1, (sizes(2), sizes(3), sizes(1)), MACS),
        Group("counts for images that are not square", 1, (sizes(2, 5), sizes(4, 3)), MACS),
        Group("counts in closed form, for models too large to run", 1, (sizes(3, **HUGE),), MACS),
        Group("refuses sizes that are not positive or not divisible", 1, too_small(sizes(2)), CONTRACT),
    ),
    mistakes=(
        Mistake("projected [CLS] too", edited(macs_per_image, ("projection = patches *", "projection = tokens *")), "The projection sees the N patches. [CLS] joins after it."),
        Mistake("left [CLS] out of the blocks", edited(macs_per_image, ("tokens = patches + 1", "tokens = patches")), "In the blocks there are N + 1 tokens."),
        Mistake("forgot the patch projection", edited(macs_per_image, ("return projection + depth", "return depth")), "The patch projection is a matrix product too: N · P²C · D."),
        Mistake("took P for P² in the projection", edited(macs_per_image, ("patch_size**2", "patch_size")), "A patch holds P · P · C values, each multiplied D times."),
        Mistake("took the number of channels to be 3", edited(macs_per_image, ("* in_channels", "* 3")), "Use in_channels: not every image is in colour."),
        Mistake("forgot the scores", edited(macs_per_image, ("tokens * tokens * dim + tokens * tokens * dim", "tokens * tokens * dim")), "Attention has two products of N + 1 by N + 1: QKᵀ makes the weights, AV uses them."),
        Mistake("forgot both products of attention", edited(macs_per_image, ("(qkv_and_proj + scores_and_mix + mlp)", "(qkv_and_proj + mlp)")), "QKᵀ and AV have no parameters, but they are products: (N + 1)² · D each."),
        Mistake("counted query, key and value once", edited(macs_per_image, ("tokens * dim * 3 * dim", "tokens * dim * dim")), "qkv has 3D outputs."),
        Mistake("forgot attn.proj", edited(macs_per_image, ("tokens * dim * 3 * dim + tokens * dim * dim", "tokens * dim * 3 * dim")), "After the heads are joined, attn.proj maps D to D for every token."),
        Mistake("counted one layer of the MLP", edited(macs_per_image, ("tokens * dim * mlp_dim + tokens * mlp_dim * dim", "tokens * dim * mlp_dim")), "fc1 and fc2 cost (N + 1) · D · M each."),
        Mistake("took the MLP to be four times as wide", edited(macs_per_image, ("tokens * dim * mlp_dim + tokens * mlp_dim * dim", "8 * tokens * dim * dim")), "mlp_dim is given; it need not be 4D."),
        Mistake("counted each multiply-accumulate twice", edited(macs_per_image, ("return projection + depth * (qkv_and_proj + scores_and_mix + mlp) + dim * num_classes", "return 2 * (projection + depth * (qkv_and_proj + scores_and_mix + mlp) + dim * num_classes)")), "A multiply-accumulate is one multiplication and one addition together. Twice that number is what papers call FLOPs."),
        Mistake("counted additions of biases", edited(macs_per_image, ("return projection", "return patches * dim + depth * tokens * (5 * dim + mlp_dim) + num_classes + projection")), "Only matrix products count here. Biases, norms, GELU and softmax are left out."),
        Mistake("applied the head to every token", edited(macs_per_image, ("+ dim * num_classes", "+ tokens * dim * num_classes")), "The head sees one pooled row."),
        Mistake("forgot the head", edited(macs_per_image, (" + dim * num_classes", "")), "The head is a product too: D · K for one row."),
        Mistake("forgot to multiply by the depth", edited(macs_per_image, ("depth * (", "(")), "Every block computes: multiply by depth."),
        Mistake("multiplied everything by the depth", edited(macs_per_image, ("return projection + depth * (qkv_and_proj + scores_and_mix + mlp) + dim * num_classes", "return depth * (projection + qkv_and_proj + scores_and_mix + mlp + dim * num_classes)")), "Projection and head run once, only the blocks run depth times."),
        Mistake("took the image to be square", edited(macs_per_image, ("num_patches(height, width, patch_size)", "num_patches(height, height, patch_size)")), "image_size may be (height, width). Count the patches along each side."),
        Mistake("returned a float", edited(macs_per_image, ("return projection", "return 1.0 * projection")), "A count is a whole number: leave out `/`, `1e9` and the like."),
        Mistake("returned billions", edited(macs_per_image, ("return projection + depth * (qkv_and_proj + scores_and_mix + mlp) + dim * num_classes", "return round((projection + depth * (qkv_and_proj + scores_and_mix + mlp) + dim * num_classes) / 1e9, 1)")), "17.6 G is how papers print it. Return the exact number."),
        Mistake("let a size that is not divisible through", edited(macs_per_image, ("num_patches(height, width, patch_size)", "(height // patch_size) * (width // patch_size)")), "10 pixels cannot be cut into patches of 4. Raise a ValueError that names both."),
    ),
)  # fmt: skip

ASSIGNMENT = Assignment(
    name="vision_transformer",
    title="The Vision Transformer",
    chapter="06_vision_transformer",
    exercises=(POOL_TOKENS, VISION_TRANSFORMER, PARAMETER_COUNT, MACS_PER_IMAGE),
)
