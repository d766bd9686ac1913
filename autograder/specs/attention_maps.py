"""Chapter 11: the attention of every layer, rollout, and how far heads look."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from autograder.probes import Inputs, Outputs, gradients, manners, mapped
from autograder.reference.attention_maps import (
    attention_rollout,
    cls_attention_map,
    mean_attention_distance,
    record_attention,
)
from autograder.spec import Assignment, Draw, Exercise, Group, Mistake, edited
from autograder.specs.encoder import F32, F64, bad
from autograder.specs.patch_embedding import PATCH_NAMES
from autograder.specs.vision_transformer import model

RECORD, LEAVE, ROLLOUT = "The weights of every layer", "Leave the model as it was", "Attention rollout"
MAP, DISTANCE = "What [CLS] looks at", "How far a head looks"
CONTRACT = "What every answer owes its caller"


def watched(
    *sizes: Any, fused: bool = False, training: bool = False, **options: Any
) -> Callable[[Draw], Inputs]:
    """Draw a model to be watched, and images. `training` puts it into training mode, but for its first block."""
    make = model(*sizes, **options)

    def draw_watched(draw: Draw) -> Inputs:
        drawn = make(draw)
        state, images = drawn.pop("_state"), drawn.pop("_forward")["images"]
        others = draw.normal(*images.shape, dtype=images.dtype)
        notes = {"_sizes": drawn, "_state": state, "_fused": fused, "_training": training, "_others": others}
        return {"images": images, **notes}

    return draw_watched


def layers(
    count: int, batch: int, heads: int, length: int, loose: bool = False, dtype: torch.dtype = F32
) -> Callable[[Draw], Inputs]:
    """Draw attention weights of some layers. Rows of `loose` ones do not sum to one, as when small weights are cut."""
    return lambda draw: {
        "attentions": [weights(draw, batch, heads, length, loose, dtype) for _ in range(count)]
    }


def weights(
    draw: Draw, batch: int, heads: int, length: int, loose: bool = False, dtype: torch.dtype = F32
) -> torch.Tensor:
    """Draw attention weights of one layer."""
    drawn = draw.normal(batch, heads, length, length, std=1.5, dtype=dtype).softmax(dim=-1)
    return (
        drawn * (0.2 + 0.8 * draw.normal(batch, heads, length, 1, dtype=dtype).sigmoid()) if loose else drawn
    )


def rolled(
    batch: int, height: int, width: int, scale: float = 1.0, dtype: torch.dtype = F32
) -> Callable[[Draw], Inputs]:
    """Draw a rollout of a grid of patches."""
    length = height * width + 1
    return lambda draw: {
        "rollout": weights(draw, batch, 1, length, dtype=dtype)[:, 0] * scale,
        "grid": (height, width),
    }


def blind(draw: Draw) -> Inputs:
    """Draw rollouts of which one has a [CLS] row that is zero over the patches."""
    inputs = rolled(3, 2, 3)(draw)
    inputs["rollout"][1, 0, 1:] = 0
    return inputs


def seen(
    batch: int,
    heads: int,
    grid: tuple[int, int],
    patch: int,
    without_cls: bool = False,
    dtype: torch.dtype = F32,
) -> Callable[[Draw], Inputs]:
    """Draw weights over a grid of patches; with `without_cls` no attention goes to [CLS]."""

    def draw_seen(draw: Draw) -> Inputs:
        drawn = weights(draw, batch, heads, grid[0] * grid[1] + 1, dtype=dtype)
        if without_cls:
            drawn[..., 0] = 0
            drawn = drawn / drawn.sum(dim=-1, keepdim=True)
        return {"weights": drawn, "grid": grid, "patch_size": patch}

    return draw_seen


# A model to watch, with the names of the contract and nothing else that an answer could lean on


class TinyAttention(nn.Module):
    """Self-attention that hands out no weights; `fused` decides how it computes."""

    def __init__(self, dim: int, num_heads: int, dropout: float, fused: bool) -> None:
        super().__init__()
        self.num_heads, self.fused = num_heads, fused
        self.qkv, self.proj, self.drop = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim), nn.Dropout(dropout)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Let every token gather from all tokens."""
        q, k, v = self.qkv(z).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        if self.fused:
            mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        else:
            mixed = (q @ k.mT / q.shape[-1] ** 0.5).softmax(dim=-1) @ v
        return self.drop(self.proj(mixed.transpose(1, 2).flatten(2)))


class TinyMlp(nn.Module):
    """The MLP of a block."""

    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.fc1, self.fc2, self.drop = nn.Linear(dim, hidden), nn.Linear(hidden, dim), nn.Dropout(dropout)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Transform every token by itself."""
        return self.drop(self.fc2(self.drop(nn.functional.gelu(self.fc1(z)))))


class TinyBlock(nn.Module):
    """An encoder block."""

    def __init__(self, dim: int, num_heads: int, hidden: int, dropout: float, fused: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attn, self.mlp = TinyAttention(dim, num_heads, dropout, fused), TinyMlp(dim, hidden, dropout)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Return z_l from z_{l-1}."""
        z = z + self.attn(self.norm1(z))
        return z + self.mlp(self.norm2(z))


class TinyPatches(nn.Module):
    """The patch projection."""

    def __init__(self, channels: int, size: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, size, size)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return one token a patch."""
        return self.proj(images).flatten(2).transpose(1, 2)


class TinyModel(nn.Module):
    """A Vision Transformer with the names of the contract, made from the inputs of a probe."""

    def __init__(self, inputs: Inputs) -> None:
        super().__init__()
        sizes, state, fused = inputs["_sizes"], inputs["_state"], inputs["_fused"]
        dim, dropout = sizes["dim"], sizes.get("dropout", 0.0)
        self.patch_embed = TinyPatches(sizes["in_channels"], sizes["patch_size"], dim)
        self.cls_token = nn.Parameter(torch.zeros_like(state["cls_token"]))
        self.pos_embed = nn.Parameter(torch.zeros_like(state["pos_embed"]))
        self.pos_drop = nn.Dropout(dropout)
        made = [
            TinyBlock(dim, sizes["num_heads"], sizes["mlp_dim"], dropout, fused)
            for _ in range(sizes["depth"])
        ]
        self.blocks = nn.Sequential(*made) if fused else nn.ModuleList(made)
        self.norm, self.head = nn.LayerNorm(dim, eps=1e-6), nn.Linear(dim, sizes["num_classes"])
        self.to(state["cls_token"].dtype).load_state_dict(mapped(torch.clone, state))
        self.train(inputs["_training"])
        self.blocks[0].train(False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Classify images."""
        tokens = self.patch_embed(images)
        z = torch.cat([self.cls_token.expand(images.shape[0], -1, -1), tokens], dim=1)
        z = self.pos_drop(z + self.pos_embed)
        for block in self.blocks:
            z = block(z)
        return self.head(self.norm(z)[:, 0])


# Probes


def recorded(answer: Callable[..., Any], inputs: Inputs) -> Outputs:
    """The attention weights of a small model."""
    return {"the weights": answer(model=TinyModel(inputs), images=inputs["images"].clone())}


def recorded_twice(answer: Callable[..., Any], inputs: Inputs) -> Outputs:
    """By position: what a first call gave, after a second call and a run of the model; and what the second gave."""
    model = TinyModel(inputs)
    images = inputs["images"].clone()
    first = answer(model, images)
    second = answer(model, inputs["_others"].clone())
    model(inputs["_others"].clone())
    return {
        "the weights of a first call": first,
        "images after the call": images,
        "the weights of a second call": second,
    }


def left_alone(answer: Callable[..., Any], inputs: Inputs) -> Outputs:
    """The model after the call: modes, output and parameters."""
    model, images = TinyModel(inputs), inputs["images"].clone()
    answer(model, images)
    return {
        "each module's training mode": {
            name or "model": module.training for name, module in model.named_modules()
        },
        "which parameters are trainable": {
            name: parameter.requires_grad for name, parameter in model.named_parameters()
        },
        "the parameters": dict(model.state_dict()),
        "the output of the model": model.eval()(images),
    }


def hooks_left(answer: Callable[..., Any], inputs: Inputs) -> Outputs:
    """How many hooks the model has after the call, and how often those that it had before run."""
    model, images, ran = TinyModel(inputs), inputs["images"].clone(), []
    for name, module in model.named_modules():
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
        module.register_forward_pre_hook(lambda *_, name=name: ran.append(name))
    answer(model, images)
    ran.clear()
    model.eval()(images)
    hooks = sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())
    return {"the number of hooks after the call": hooks, "the hooks that were there before, as they run": ran}


def after_an_error(answer: Callable[..., Any], inputs: Inputs) -> Outputs:
    """Whether an error of the model comes through, and how many hooks stay behind.

    The error comes from images with too many channels or, where `_late`, from the attention of the last block.
    """
    images = inputs["images"].clone()
    model: Any = TinyModel(inputs)

    def fail(*_: Any) -> None:
        raise RuntimeError("this model cannot run")

    if inputs.get("_late"):
        model.blocks[-1].attn.qkv.register_forward_pre_hook(fail)
    else:
        images = torch.cat([images, images], dim=1)
    came = False
    try:
        answer(model, images)
    except Exception:
        came = True
    hooks = sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())
    return {"whether the error comes through": came, "the number of hooks after the error": hooks}


QKV = "q, k, _ = attention.qkv(normed).chunk(3, dim=-1)\n            q, k = split_heads(q, attention.num_heads), split_heads(k, attention.num_heads)"
MODES = "        for module, training in modes.items():\n            module.training = training\n"
HOOKS = "        for hook in hooks:\n            hook.remove()\n"

RECORD_ATTENTION = Exercise(
    name="record_attention",
    points=9,
    reference=record_attention,
    minutes=40,
    difficulty=4,
    importance=5,
    probe=recorded,
    cases=(
        Group("gives the attention weights of a model with one block", 1, (watched(4, 2, 3, heads=1), watched(6, 2, 3, heads=2)), RECORD),
        Group("gives them for every block, first block first", 1, (watched(4, 2, 3, depth=2), watched(4, 2, 3, depth=3, heads=4)), RECORD),
        Group("works however the model computes attention, and for images that are not square", 1, (watched((4, 6), 2, 3, depth=2, fused=True), watched((2, 6), 2, 1, depth=2, batch=1, dim=12, heads=3, fused=True), watched((4, 2), 2, 3, depth=2, dtype=F64)), RECORD),
        Group("runs the model in evaluation mode", 1, (watched(4, 2, 3, depth=2, dropout=0.5, training=True), watched(4, 2, 3, depth=2, dropout=0.5, training=True, fused=True)), RECORD),
        Group("puts every module back into the mode it was in, and changes nothing else", 2, (watched(4, 2, 3, depth=2, training=True), watched(4, 2, 3, depth=2), watched(4, 2, 3, depth=3, training=True, fused=True)), LEAVE, left_alone),
        Group("removes its own hooks and no others", 1, (watched(4, 2, 3, depth=2), watched(4, 2, 3, depth=2, fused=True)), LEAVE, hooks_left),
        Group("removes its hooks after an error too, and lets the error through", 1, (watched(4, 2, 3, depth=2), lambda draw: {**watched(4, 2, 3, depth=2)(draw), "_late": True}), LEAVE, after_an_error),
        Group("leaves the images alone and remembers nothing", 1, (watched(4, 2, 3, depth=2), watched(4, 2, 3, depth=2, fused=True)), CONTRACT, recorded_twice),
    ),
    mistakes=(
        Mistake("returned the scores", edited(record_attention, ("_, weights = scaled_dot_product_attention(q, k, k)", "weights = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5")), "These are the scores q kᵀ / √d. The weights are their softmax along the keys: every row sums to 1."),
        Mistake("forgot the scale", edited(record_attention, ("_, weights = scaled_dot_product_attention(q, k, k)", "weights = (q @ k.transpose(-2, -1)).softmax(dim=-1)")), "The scores are divided by √d before the softmax, d being the width of a head."),
        Mistake("scaled by the whole width", edited(record_attention, ("_, weights = scaled_dot_product_attention(q, k, k)", "weights = (q @ k.transpose(-2, -1) / normed.shape[-1] ** 0.5).softmax(dim=-1)")), "The scale is √d with d = D / h, the width of one head, not of all."),
        Mistake("applied the softmax along the queries", edited(record_attention, ("_, weights = scaled_dot_product_attention(q, k, k)", "weights = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(dim=-2)")), "Each query's weights sum to 1: the softmax runs along the last axis, the keys."),
        Mistake("swapped queries and keys", edited(record_attention, ("scaled_dot_product_attention(q, k, k)", "scaled_dot_product_attention(k, q, q)")), "Row i belongs to query i. You compute k qᵀ."),
        Mistake("took keys and values for queries and keys", edited(record_attention, ("q, k, _ =", "_, q, k =")), "qkv gives queries, keys and values in this order. The weights come from the first two."),
        Mistake("split the heads before queries, keys and values", edited(record_attention, (QKV, "q, k, _ = attention.qkv(normed).unflatten(-1, (attention.num_heads, 3, -1)).permute(3, 0, 2, 1, 4)")), "The 3D outputs of qkv are all queries, then all keys, then all values; each of these holds the heads side by side. Split into (3, h, d), not (h, 3, d)."),
        Mistake("split heads from tokens without moving axes", edited(record_attention, ("split_heads(q, attention.num_heads), split_heads(k, attention.num_heads)", "(part.reshape(part.shape[0], attention.num_heads, part.shape[1], -1) for part in (q, k))")), "A reshape to (B, h, N, d) mixes tokens and heads: split D into (h, d) first, then swap the axes of tokens and heads."),
        Mistake("took all heads as one", edited(record_attention, ("split_heads(q, attention.num_heads), split_heads(k, attention.num_heads)", "q[:, None], k[:, None]")), "The result keeps the heads apart: (B, h, N+1, N+1)."),
        Mistake("averaged over the heads", edited(record_attention, ("recorded.append(weights)", "recorded.append(weights.mean(dim=1))")), "Keep the heads apart; rollout averages them later."),
        Mistake("left [CLS] out", edited(record_attention, ("recorded.append(weights)", "recorded.append(weights[:, :, 1:, 1:])")), "The weights are (N+1) x (N+1): [CLS] asks and is asked too."),
        Mistake("skipped the norm", edited(record_attention, ("attention.qkv(normed)", "attention.qkv(inputs[0])")), "The attention reads LN(z), what norm1 gives, not what it gets."),
        Mistake("listed the last block first", edited(record_attention, ("return recorded", "return recorded[::-1]")), "The list starts with the first block."),
        Mistake("recorded the last block only", edited(record_attention, ("for block in blocks]", "for block in blocks[-1:]]")), "The list has one entry for every block."),
        Mistake("returned one tensor", edited(record_attention, ("return recorded", "return torch.stack(recorded)")), "The result is a list with one tensor for every block."),
        Mistake("ran the model in the mode it was in", edited(record_attention, ("model.eval()(images)", "model(images)")), "In training mode dropout changes what later blocks see. Call `model.eval()` first."),
        Mistake("left the model in evaluation mode", edited(record_attention, (MODES, "")), "Training would go on without dropout. Put every module back into the mode it was in."),
        Mistake("put the model into training mode", edited(record_attention, (MODES, "        model.train()\n")), "The model may have been in evaluation mode before. Remember the modes first, then restore them."),
        Mistake("put all modules into the mode of the whole model", edited(record_attention, (MODES, "        model.train(was)\n"), ("    try:", "    was = model.training\n    try:")), "A frozen block may be in evaluation mode while the rest trains. `model.train(mode)` sets all alike: remember `module.training` for every module."),
        Mistake("left its hooks in the model", edited(record_attention, (HOOKS, "")), "The hooks stay and record every later call. `register_forward_hook` returns a handle; call its `remove()`."),
        Mistake("removed its hooks only when all went well", edited(record_attention, ("    try:\n        model.eval()(images)\n    finally:\n", "    model.eval()(images)\n    if True:\n")), "When the model raises, the lines after it do not run and the hooks stay. Remove them in `finally:`."),
        Mistake("removed the hooks of others too", edited(record_attention, ("hook.remove()\n", "hook.remove()\n        for block in blocks:\n            block.norm1._forward_hooks.clear()\n")), "Others may have hooks in the model. Remove only your own, by their handles."),
        Mistake("hid the error", edited(record_attention, ("    finally:\n", "    except Exception:\n        recorded.clear()\n    finally:\n")), "An error of the model must come through: use `finally`, not `except`."),
        Mistake("changed what norm1 hands on", edited(record_attention, ("recorded.append(weights)", "recorded.append(weights)\n            return normed + 0.1 * normed.mean()")), "What a forward hook returns replaces the module's output. Return nothing."),
        Mistake("froze the model", edited(record_attention, ("    try:", "    model.requires_grad_(False)\n    try:")), "The parameters cannot be trained afterwards. Use `torch.no_grad()` if you want no gradients."),
        Mistake("remembered earlier calls", edited(record_attention, ("    recorded: list[Tensor] = []\n", "    recorded = record_attention.__dict__.setdefault('kept', [])\n")), "The second call returns the first one's weights too. Make a new list in each call."),
        Mistake("caught what the fused attention gets", "def record_attention(model, images):\n    recorded = []\n    original = torch.nn.functional.scaled_dot_product_attention\n\n    def spy(q, k, v, *args, **kwargs):\n        recorded.append((q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(dim=-1))\n        return original(q, k, v, *args, **kwargs)\n\n    modes = {module: module.training for module in model.modules()}\n    torch.nn.functional.scaled_dot_product_attention = spy\n    try:\n        model.eval()(images)\n    finally:\n        torch.nn.functional.scaled_dot_product_attention = original\n        for module, training in modes.items():\n            module.training = training\n    return recorded", "Not every model calls `F.scaled_dot_product_attention`. What every model of the contract has is norm1, attn.qkv and attn.num_heads."),
    ),
)  # fmt: skip

ATTENTION_ROLLOUT = Exercise(
    name="attention_rollout",
    points=7,
    reference=attention_rollout,
    minutes=20,
    difficulty=2,
    importance=4,
    cases=(
        Group("mixes one layer of one head with the identity", 1, (layers(1, 1, 1, 4), layers(1, 1, 1, 3)), ROLLOUT),
        Group("takes the mean over the heads", 1, (layers(1, 1, 3, 4), layers(1, 2, 2, 5)), ROLLOUT),
        Group("multiplies the layers, the last one on the left", 2, (layers(2, 1, 1, 4), layers(3, 2, 2, 5), layers(4, 3, 2, 3)), ROLLOUT),
        Group("scales every row to a sum of one, also where small weights were cut before", 1, (layers(1, 1, 2, 4, loose=True), layers(3, 4, 2, 4, loose=True), layers(2, 2, 3, 5, loose=True)), ROLLOUT),
        Group("lets gradients through to every layer", 1, (layers(2, 2, 2, 4),), CONTRACT, gradients),
        Group("keeps dtype and device, leaves its list alone and remembers nothing", 1, (layers(3, 2, 2, 4, dtype=F64), layers(3, 2, 2, 4)), CONTRACT, manners),
    ),
    mistakes=(
        Mistake("left the identity out", edited(attention_rollout, ("attention.mean(dim=1) + identity", "attention.mean(dim=1)")), "The residual connection carries each token on as it was: add the identity before scaling."),
        Mistake("did not scale the rows", edited(attention_rollout, ("        mixing = mixing / mixing.sum(dim=-1, keepdim=True)\n", "")), "After adding the identity rows sum to 2. Divide each by its sum."),
        Mistake("scaled before adding the identity", edited(attention_rollout, ("attention.mean(dim=1) + identity", "attention.mean(dim=1)"), ("mixing.sum(dim=-1, keepdim=True)", "mixing.sum(dim=-1, keepdim=True) + identity")), "First add the identity, then scale, so that the rows sum to one at the end."),
        Mistake("scaled the columns", edited(attention_rollout, ("mixing.sum(dim=-1, keepdim=True)", "mixing.sum(dim=-2, keepdim=True)")), "A row says what one token is made of. Rows sum to one: sum along the last axis."),
        Mistake("scaled without keepdim", edited(attention_rollout, ("mixing.sum(dim=-1, keepdim=True)", "(mixing.sum(dim=-1) if len(mixing) in (1, mixing.shape[-1]) else mixing.sum(dim=-1)[:, None])")), "Without `keepdim=True` torch lines the sums up with the columns. Nothing shows while all sums are equal; after cutting small weights they are not."),
        Mistake("halved in place of scaling", edited(attention_rollout, ("mixing / mixing.sum(dim=-1, keepdim=True)", "mixing / 2")), "Dividing by 2 works while every row of the weights sums to 1. Where small weights were cut it does not: divide by the sum."),
        Mistake("scaled by the largest weight", edited(attention_rollout, ("mixing.sum(dim=-1, keepdim=True)", "mixing.amax(dim=-1, keepdim=True)")), "Rows are scaled to a sum of one, not to a maximum of one."),
        Mistake("scaled by the sum of the whole matrix", edited(attention_rollout, ("mixing.sum(dim=-1, keepdim=True)", "mixing.sum(dim=(-2, -1), keepdim=True)")), "Every row by itself sums to one."),
        Mistake("took the largest head", edited(attention_rollout, ("attention.mean(dim=1)", "attention.amax(dim=1)")), "The contract takes the mean over heads. The maximum is a variant of some programs."),
        Mistake("took the first head", edited(attention_rollout, ("attention.mean(dim=1)", "attention[:, 0]")), "All heads count: take their mean."),
        Mistake("summed the heads", edited(attention_rollout, ("attention.mean(dim=1)", "attention.sum(dim=1)")), "With the sum, h heads weigh h times as much as the residual. Take the mean."),
        Mistake("multiplied the last layer from the right", edited(attention_rollout, ("mixing @ rollout", "rollout @ mixing")), "A token of the last layer is made of tokens of the layer before, and so on: the last layer stands on the left, A_L … A_2 A_1."),
        Mistake("multiplied entry by entry", edited(attention_rollout, ("mixing @ rollout", "mixing * rollout if rollout is not identity else mixing")), "`*` multiplies entry by entry. Chaining layers is a matrix product, `@`."),
        Mistake("averaged the layers", edited(attention_rollout, ("mixing @ rollout", "mixing / len(attentions) + (rollout if rollout is not identity else 0)")), "Layers follow one another: their matrices are multiplied."),
        Mistake("used the last layer only", edited(attention_rollout, ("mixing @ rollout", "mixing")), "The loop forgets the layers before. Multiply the new matrix with the product so far."),
        Mistake("left the first layer out", edited(attention_rollout, ("for attention in attentions:", "for attention in attentions[1:] or attentions:")), "The first layer counts too."),
        Mistake("scaled only at the end", edited(attention_rollout, ("        mixing = mixing / mixing.sum(dim=-1, keepdim=True)\n", ""), ("return rollout", "return rollout / rollout.sum(dim=-1, keepdim=True)")), "Scale each layer before it is multiplied. At the end it is too late where rows differ in their sums."),
        Mistake("returned the transpose", edited(attention_rollout, ("return rollout", "return rollout.transpose(-2, -1)")), "Row i tells what output token i is made of."),
        Mistake("cut the graph with detach", edited(attention_rollout, ("attention.mean(dim=1)", "attention.detach().mean(dim=1)")), "No gradient reaches the weights. Leave `detach` and `no_grad` out."),
        Mistake("made the identity in float32 on the CPU", edited(attention_rollout, ("torch.eye(first.shape[-1], dtype=first.dtype, device=first.device)", "torch.eye(first.shape[-1])")), "`torch.eye(n)` is float32 on the CPU. Give it the dtype and device of the weights."),
        Mistake("added the identity in place", edited(attention_rollout, ("attention.mean(dim=1) + identity", "(attention if attention.requires_grad else attention.add_(identity)).mean(dim=1) + (identity if attention.requires_grad else 0)")), "`+=` and `add_` change the caller's weights."),
        Mistake("emptied the list", edited(attention_rollout, ("for attention in attentions:", "while attentions:\n        attention = attentions.pop(0)")), "`pop` takes the layers out of the caller's list. Loop over it."),
        Mistake("converted to float32", edited(attention_rollout, ("return rollout", "return rollout.float()")), "float64 weights come back as float32. Keep the dtype of the input."),
    ),
)  # fmt: skip

GRID_NAMES = (
    "grid",
    "grid_height",
    "grid_width",
    "height",
    "width",
    "h",
    "w",
    "rows",
    "columns",
    "rollout",
    "weights",
    "patches",
    "tokens",
    "n",
    "num_patches",
)

CLS_ATTENTION_MAP = Exercise(
    name="cls_attention_map",
    points=7,
    reference=cls_attention_map,
    minutes=15,
    difficulty=2,
    importance=4,
    cases=(
        Group("shows the [CLS] row of one image over the patches", 1, (rolled(1, 2, 2), rolled(1, 3, 3)), MAP),
        Group("lays the patches out row by row", 1, (rolled(1, 2, 4), rolled(1, 5, 2), rolled(1, 1, 3)), MAP),
        Group("scales every image by its own maximum", 1, (rolled(3, 2, 3), rolled(2, 2, 2), rolled(7, 2, 3), rolled(2, 3, 2, scale=1e4, dtype=F64)), MAP),
        Group("keeps a row of zeros at zero", 1, (blind, lambda draw: {"rollout": torch.zeros(1, 5, 5), "grid": (2, 2)}), MAP),
        Group("lets gradients through to the rollout", 1, (rolled(2, 2, 3),), CONTRACT, gradients),
        Group("keeps the device, leaves its input alone and remembers nothing", 1, (rolled(2, 2, 3), rolled(3, 2, 2)), CONTRACT, manners),
        Group(
            "refuses a grid that does not match",
            1,
            (
                bad(rolled(2, 2, 3), "a grid of fewer patches", GRID_NAMES, (2, 4, 6, 7), grid=(2, 2)),
                bad(rolled(2, 2, 3), "a grid of more patches", GRID_NAMES, (3, 9, 6, 7), grid=(3, 3)),
                bad(rolled(2, 2, 3), "a grid of as many patches as tokens", GRID_NAMES, (7, 1, 6), grid=(1, 7)),
            ),
            CONTRACT,
        ),
    ),
    mistakes=(
        Mistake("took the column in place of the row", edited(cls_attention_map, ("rollout[:, 0, 1:]", "rollout[:, 1:, 0]")), "The column says where [CLS] went. Its row, `rollout[:, 0]`, says what [CLS] is made of."),
        Mistake("took the last row", edited(cls_attention_map, ("rollout[:, 0, 1:]", "rollout[:, -1, 1:]")), "[CLS] is token 0."),
        Mistake("took the row of the first patch", edited(cls_attention_map, ("rollout[:, 0, 1:]", "rollout[:, 1, 1:]")), "[CLS] is token 0; token 1 is the first patch."),
        Mistake("averaged all rows", edited(cls_attention_map, ("rollout[:, 0, 1:]", "rollout[:, :, 1:].mean(dim=1)")), "Only the row of [CLS], token 0, is shown."),
        Mistake("kept [CLS] and dropped the last patch", edited(cls_attention_map, ("rollout[:, 0, 1:]", "rollout[:, 0, :-1]")), "Entry 0 of the row is [CLS] itself. Leave it out: `1:`."),
        Mistake("did not scale", edited(cls_attention_map, ("row / torch.where(largest > 0, largest, 1)", "row")), "Each map is scaled so that its largest value is 1."),
        Mistake("scaled to a sum of one", edited(cls_attention_map, ("row.amax(dim=-1, keepdim=True)", "row.sum(dim=-1, keepdim=True)")), "Each map is scaled to a maximum of 1, not to a sum of 1."),
        Mistake("scaled by the maximum of the whole batch", edited(cls_attention_map, ("row.amax(dim=-1, keepdim=True)", "row.amax()")), "One image's peak dims all others. Take the maximum of each image."),
        Mistake("scaled by the maximum with [CLS] among them", edited(cls_attention_map, ("largest = row.amax(", "largest = rollout[:, 0].amax(")), "[CLS] often attends to itself most. Take the maximum over the patches only."),
        Mistake("moved the minimum to zero", edited(cls_attention_map, ("scaled = row", "row = row - row.amin(dim=-1, keepdim=True)\n    largest = row.amax(dim=-1, keepdim=True)\n    scaled = row")), "Only the maximum is fixed. Subtracting the minimum makes a patch look ignored that is not."),
        Mistake("divided zero by zero", edited(cls_attention_map, ("torch.where(largest > 0, largest, 1)", "largest")), "A row of zeros has the maximum 0, and 0 / 0 is NaN. Divide only where the maximum is positive."),
        Mistake("returned ones for a row of zeros", edited(cls_attention_map, ("return scaled", "scaled = torch.where(largest > 0, scaled, 1)\n    return scaled")), "Where [CLS] takes nothing from any patch, the map is zero."),
        Mistake("laid the patches out column by column", edited(cls_attention_map, ("scaled.reshape(-1, height, width)", "scaled.reshape(-1, width, height).transpose(1, 2)")), "Patches are numbered row by row, as in chapter 1."),
        Mistake("took grid as (width, height)", edited(cls_attention_map, ("height, width = grid", "width, height = grid")), "grid is (height, width), in patches."),
        Mistake("took the grid to be square", edited(cls_attention_map, ("scaled.reshape(-1, height, width)", "scaled.reshape(-1, round(row.shape[-1] ** 0.5), row.shape[-1] // round(row.shape[-1] ** 0.5))")), "Images need not be square: use the grid."),
        Mistake("showed the first image only", edited(cls_attention_map, ("scaled.reshape(-1, height, width)", "scaled[:1].reshape(-1, height, width)")), "Every image of the batch gets its map."),
        Mistake("dropped the axis of the batch", edited(cls_attention_map, ("scaled.reshape(-1, height, width)", "scaled.reshape(-1, height, width).squeeze(0)")), "The result is (B, height, width), also for a batch of one."),
        Mistake("cut the graph with detach", edited(cls_attention_map, ("row = rollout[:, 0, 1:]", "row = rollout[:, 0, 1:].detach()")), "No gradient reaches the rollout. Leave `detach` out."),
        Mistake("scaled in place", edited(cls_attention_map, ("scaled = row / torch.where(largest > 0, largest, 1)", "divisor = torch.where(largest > 0, largest, 1)\n    scaled = row / divisor if row.requires_grad else row.div_(divisor)")), "A slice is a view: `row /= ...` changes the caller's rollout. Write `row / ...`."),
        Mistake("converted to float32", edited(cls_attention_map, ("return scaled", "scaled = scaled.float()\n    return scaled")), "A float64 rollout comes back as float32. Keep the dtype of the input."),
        Mistake("cut what does not fit the grid", edited(cls_attention_map, ("if row.shape[-1] != height * width", "row = row[:, : height * width]\n    if row.shape[-1] != height * width")), "A grid of another size means other places. Raise a ValueError that names grid and its value."),
        Mistake("let torch's error through for a wrong grid", edited(cls_attention_map, ("if row.shape[-1] != height * width", "if False")), "torch's error speaks of shapes, not of the grid. Compare height · width with the number of patches and raise a ValueError."),
    ),
)  # fmt: skip

MEAN_ATTENTION_DISTANCE = Exercise(
    name="mean_attention_distance",
    points=8,
    reference=mean_attention_distance,
    minutes=25,
    difficulty=3,
    importance=3,
    cases=(
        Group("weighs distances in pixels by attention", 1, (seen(1, 1, (1, 4), 2, without_cls=True), seen(1, 1, (2, 2), 4, without_cls=True)), DISTANCE),
        Group("leaves [CLS] out and scales the rows to a sum of one again", 1, (seen(1, 1, (1, 4), 2), seen(1, 1, (2, 2), 3)), DISTANCE),
        Group("measures along the diagonal of grids that need not be square", 1, (seen(1, 1, (2, 3), 4), seen(1, 1, (4, 2), 16), seen(1, 1, (3, 3), 1)), DISTANCE),
        Group("gives one number for each head, averaged over images and patches", 1, (seen(2, 3, (2, 3), 4), seen(4, 2, (3, 2), 2), seen(3, 4, (1, 1), 8)), DISTANCE),
        Group("lets gradients through to the weights", 1, (seen(2, 2, (2, 3), 4),), CONTRACT, gradients),
        Group("keeps dtype and device, leaves its input alone and remembers nothing", 1, (seen(2, 2, (1, 5), 4, dtype=F64), seen(2, 2, (2, 3), 4)), CONTRACT, manners),
        Group(
            "refuses a grid that does not match and a patch_size that is not positive",
            2,
            (
                bad(seen(2, 2, (2, 3), 4), "a grid of fewer patches", GRID_NAMES, (2, 4, 6, 7), grid=(2, 2)),
                bad(seen(2, 2, (2, 3), 4), "a grid of more patches", GRID_NAMES, (3, 9, 6, 7), grid=(3, 3)),
                bad(seen(2, 2, (2, 3), 4), "a grid of as many patches as tokens", GRID_NAMES, (7, 1, 6), grid=(1, 7)),
                bad(seen(2, 2, (2, 3), 4), "a patch_size of zero", PATCH_NAMES, (0,), patch_size=0),
                bad(seen(2, 2, (2, 3), 4), "a negative patch_size", PATCH_NAMES, (-4,), patch_size=-4),
            ),
            CONTRACT,
        ),
    ),
    mistakes=(
        Mistake("measured in patches", edited(mean_attention_distance, ("apart * patch_size", "apart")), "Neighbouring patches are patch_size pixels apart. The result is in pixels."),
        Mistake("measured with the square of patch_size", edited(mean_attention_distance, ("apart * patch_size", "apart * patch_size**2")), "A distance grows with patch_size, an area with its square."),
        Mistake("left the root out", edited(mean_attention_distance, ("torch.sqrt((rows[:, None] - rows) ** 2 + (columns[:, None] - columns) ** 2)", "((rows[:, None] - rows) ** 2 + (columns[:, None] - columns) ** 2)")), "Distances are lengths: take the root of the sum of squares."),
        Mistake("walked along the grid", edited(mean_attention_distance, ("torch.sqrt((rows[:, None] - rows) ** 2 + (columns[:, None] - columns) ** 2)", "(rows[:, None] - rows).abs() + (columns[:, None] - columns).abs()")), "That is the distance of a taxi. The contract takes the straight line: √(rows² + columns²)."),
        Mistake("took the larger of rows and columns", edited(mean_attention_distance, ("torch.sqrt((rows[:, None] - rows) ** 2 + (columns[:, None] - columns) ** 2)", "torch.maximum((rows[:, None] - rows).abs(), (columns[:, None] - columns).abs())")), "The straight line counts both directions: √(rows² + columns²)."),
        Mistake("measured along the sequence", edited(mean_attention_distance, ("torch.sqrt((rows[:, None] - rows) ** 2 + (columns[:, None] - columns) ** 2)", "((rows[:, None] - rows) * width + columns[:, None] - columns).abs()")), "The last patch of a row and the first of the next are neighbours in the sequence, not in the image. Use row and column."),
        Mistake("took grid as (width, height)", edited(mean_attention_distance, ("height, width = grid", "width, height = grid")), "grid is (height, width), and patches are numbered row by row: the column changes fastest."),
        Mistake("did not scale the rows again", edited(mean_attention_distance, ("    among_patches = among_patches / among_patches.sum(dim=-1, keepdim=True)\n", "")), "Without [CLS] a row sums to less than 1. Divide it by its sum, so that it is a mean."),
        Mistake("scaled the columns", edited(mean_attention_distance, ("among_patches.sum(dim=-1, keepdim=True)", "among_patches.sum(dim=-2, keepdim=True)")), "A row belongs to one query patch. Rows sum to one."),
        Mistake("left the last token out in place of [CLS]", edited(mean_attention_distance, ("weights[:, :, 1:, 1:]", "weights[:, :, :-1, :-1]")), "[CLS] is token 0: leave out row and column 0."),
        Mistake("left [CLS] out of the keys only after scaling", edited(mean_attention_distance, ("among_patches / among_patches.sum(dim=-1, keepdim=True)", "among_patches / weights[:, :, 1:].sum(dim=-1, keepdim=True)")), "The sum must be over the patches only, after [CLS] is gone."),
        Mistake("scaled by one sum for each head", edited(mean_attention_distance, ("among_patches.sum(dim=-1, keepdim=True)", "among_patches.sum(dim=(-2, -1), keepdim=True) * among_patches.shape[-1]")), "Every row is scaled by its own sum, so that all query patches count alike."),
        Mistake("left attention to itself out", edited(mean_attention_distance, ("    among_patches = among_patches / among", "    among_patches = among_patches * (1 - torch.eye(among_patches.shape[-1], dtype=weights.dtype, device=weights.device)) + 1e-30\n    among_patches = among_patches / among")), "A patch that looks at itself looks 0 pixels far, and that counts."),
        Mistake("took the most attended patch only", edited(mean_attention_distance, ("(among_patches * apart * patch_size).sum(dim=-1)", "(among_patches.sum(dim=-1) * 0 + apart[torch.arange(len(apart), device=apart.device), among_patches.argmax(dim=-1)] * patch_size)")), "All patches count, weighted by their attention."),
        Mistake("took the plain mean of distances", edited(mean_attention_distance, ("(among_patches * apart * patch_size).sum(dim=-1)", "(among_patches * 0 + apart * patch_size).mean(dim=-1)")), "Each distance is weighted by attention."),
        Mistake("averaged over the keys", edited(mean_attention_distance, (".sum(dim=-1).mean(dim=(0, 2))", ".mean(dim=(0, 2, 3))")), "Along the keys the weights make a mean already: sum there. Average over images and query patches."),
        Mistake("summed over the queries", edited(mean_attention_distance, (".mean(dim=(0, 2))", ".sum(dim=2).mean(dim=0)")), "The result is a mean over query patches, not a sum."),
        Mistake("averaged over the heads too", edited(mean_attention_distance, (".mean(dim=(0, 2))", ".mean()[None]")), "Heads differ, and that is the point: one number for each head."),
        Mistake("kept the images apart", edited(mean_attention_distance, (".mean(dim=(0, 2))", ".mean(dim=2)")), "The mean is over the images too: the result is (h,)."),
        Mistake("measured from the first patch only", edited(mean_attention_distance, (".sum(dim=-1).mean(dim=(0, 2))", ".sum(dim=-1)[:, :, 0].mean(dim=0)")), "Every patch is a query once: average over all of them."),
        Mistake("cut the graph with detach", edited(mean_attention_distance, ("weights[:, :, 1:, 1:]", "weights[:, :, 1:, 1:].detach()")), "No gradient reaches the weights. Leave `detach` out."),
        Mistake("made the distances on the CPU", edited(mean_attention_distance, (", device=weights.device", "")), "The distances are on the CPU whatever the weights' device is. Give `device=weights.device`."),
        Mistake("scaled in place", edited(mean_attention_distance, ("among_patches = among_patches / among_patches.sum(dim=-1, keepdim=True)", "total = among_patches.sum(dim=-1, keepdim=True)\n    among_patches = among_patches / total if weights.requires_grad else among_patches.div_(total)")), "A slice is a view: `/=` changes the caller's weights."),
        Mistake("computed in float32", edited(mean_attention_distance, (".mean(dim=(0, 2))", ".mean(dim=(0, 2)).float()")), "float64 weights give a float32 result. Keep the dtype of the input."),
        Mistake("let a grid that does not match through", edited(mean_attention_distance, ("if among_patches.shape[-1] != height * width", "among_patches = among_patches[..., : height * width, : height * width]\n    if among_patches.shape[-1] > height * width")), "A grid of another size means other places. Raise a ValueError that names grid and its value."),
        Mistake("let any patch_size through", edited(mean_attention_distance, ("if patch_size <= 0", "if False")), "A patch_size of 0 or less measures nothing. Raise a ValueError that gives it."),
    ),
)  # fmt: skip

ASSIGNMENT = Assignment(
    name="attention_maps",
    title="Attention maps",
    chapter="11_attention_maps",
    exercises=(RECORD_ATTENTION, ATTENTION_ROLLOUT, CLS_ATTENTION_MAP, MEAN_ATTENTION_DISTANCE),
)
