"""Weights of other libraries, by name, into `vit.VisionTransformer`.

    load(model, timm_model.state_dict(), source="timm")
    load(model, numpy.load("ViT-B_16.npz"), source="jax", resize="linear-zoom")

Each converter is a table from the library's names to ours (timm's), plus what has to be done to the values.
The options of the model that belong to each library are in `variants.CONVENTIONS`.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from autograder.reference.resize_positions import Grid, resize_positions
from autograder.reference.vit import VisionTransformer

Weights = dict[str, Tensor]
Names = list[tuple[str, str]]  # (pattern of the library's name, ours); patterns are anchored at both ends

HUGGINGFACE: Names = [
    (r"embeddings\.cls_token", "cls_token"),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.patch_embeddings\.projection\.(\w+)", r"patch_embed.proj.\1"),
    # transformers 5, then 4, whose names are those of the files in circulation
    (r"layers\.(\d+)\.layernorm_before\.(\w+)", r"blocks.\1.norm1.\2"),
    (r"layers\.(\d+)\.attention\.([qkv])_proj\.(\w+)", r"blocks.\1.attn.\2.\3"),
    (r"layers\.(\d+)\.attention\.o_proj\.(\w+)", r"blocks.\1.attn.proj.\2"),
    (r"layers\.(\d+)\.layernorm_after\.(\w+)", r"blocks.\1.norm2.\2"),
    (r"layers\.(\d+)\.mlp\.(fc[12])\.(\w+)", r"blocks.\1.mlp.\2.\3"),
    (r"encoder\.layer\.(\d+)\.layernorm_before\.(\w+)", r"blocks.\1.norm1.\2"),
    (r"encoder\.layer\.(\d+)\.attention\.attention\.([qkv])\w+\.(\w+)", r"blocks.\1.attn.\2.\3"),
    (r"encoder\.layer\.(\d+)\.attention\.output\.dense\.(\w+)", r"blocks.\1.attn.proj.\2"),
    (r"encoder\.layer\.(\d+)\.layernorm_after\.(\w+)", r"blocks.\1.norm2.\2"),
    (r"encoder\.layer\.(\d+)\.intermediate\.dense\.(\w+)", r"blocks.\1.mlp.fc1.\2"),
    (r"encoder\.layer\.(\d+)\.output\.dense\.(\w+)", r"blocks.\1.mlp.fc2.\2"),
    (r"layernorm\.(\w+)", r"norm.\1"),
    (r"pooler\.dense\.(\w+)", r"pre_logits.fc.\1"),
    (r"classifier\.(\w+)", r"head.\1"),
]

TORCHVISION: Names = [
    (r"class_token", "cls_token"),
    (r"encoder\.pos_embedding", "pos_embed"),
    (r"conv_proj\.(\w+)", r"patch_embed.proj.\1"),
    (r"encoder\.layers\.encoder_layer_(\d+)\.ln_([12])\.(\w+)", r"blocks.\1.norm\2.\3"),
    (r"encoder\.layers\.encoder_layer_(\d+)\.self_attention\.in_proj_(\w+)", r"blocks.\1.attn.qkv.\2"),
    (r"encoder\.layers\.encoder_layer_(\d+)\.self_attention\.out_proj\.(\w+)", r"blocks.\1.attn.proj.\2"),
    (r"encoder\.layers\.encoder_layer_(\d+)\.mlp\.(?:0|linear_1)\.(\w+)", r"blocks.\1.mlp.fc1.\2"),
    (r"encoder\.layers\.encoder_layer_(\d+)\.mlp\.(?:3|linear_2)\.(\w+)", r"blocks.\1.mlp.fc2.\2"),
    (r"encoder\.ln\.(\w+)", r"norm.\1"),
    (r"heads\.pre_logits\.(\w+)", r"pre_logits.fc.\1"),
    (r"heads\.head\.(\w+)", r"head.\1"),
]

# The published files number all parts of a block in one row (norm 0, attention 1, norm 2, MLP 3); files that
# the code writes today number each kind by itself.
ATTENTION = r"Transformer/encoderblock_(\d+)/MultiHeadDotProductAttention_[01]"
JAX: Names = [
    (r"cls", "cls_token"),
    (r"Transformer/posembed_input/pos_embedding", "pos_embed"),
    (r"embedding/(\w+)", r"patch_embed.proj.\1"),
    (r"Transformer/encoderblock_(\d+)/LayerNorm_0/(\w+)", r"blocks.\1.norm1.\2"),
    (ATTENTION + r"/([qkv])\w+/(\w+)", r"blocks.\1.attn.\2.\3"),
    (ATTENTION + r"/out/(\w+)", r"blocks.\1.attn.proj.\2"),
    (r"Transformer/encoderblock_(\d+)/LayerNorm_[12]/(\w+)", r"blocks.\1.norm2.\2"),
    (r"Transformer/encoderblock_(\d+)/MlpBlock_[03]/Dense_0/(\w+)", r"blocks.\1.mlp.fc1.\2"),
    (r"Transformer/encoderblock_(\d+)/MlpBlock_[03]/Dense_1/(\w+)", r"blocks.\1.mlp.fc2.\2"),
    (r"Transformer/encoder_norm/(\w+)", r"norm.\1"),
    (r"pre_logits/(\w+)", r"pre_logits.fc.\1"),
    (r"head/(\w+)", r"head.\1"),
]


def rename(weights: Mapping[str, Any], names: Names, source: str) -> dict[str, Any]:
    """Return the weights under our names. Raises ValueError with the names that the table does not know."""
    renamed, unknown = {}, []
    for name, value in weights.items():
        ours = [re.sub(pattern, new, name) for pattern, new in names if re.fullmatch(pattern, name)]
        if ours:
            renamed[ours[0]] = value
        else:
            unknown.append(name)
    if unknown:
        raise ValueError(f"weights have names that source={source!r} does not know: {listed(unknown)}")
    return renamed


def listed(names: list[str]) -> str:
    """Return the first few names and how many there are."""
    return ", ".join(names[:4]) + (f" … ({len(names)} in all)" if len(names) > 4 else "")


def join_qkv(weights: Mapping[str, Tensor]) -> Weights:
    """Stack separate q, k and v on top of each other: the layout of `attn.qkv`."""
    joined = dict(weights)
    for name in weights:
        if ".attn.q." in name:
            parts = [joined.pop(name.replace(".attn.q.", f".attn.{part}.")) for part in "qkv"]
            joined[name.replace(".attn.q.", ".attn.qkv.")] = torch.cat(parts)
    return joined


def from_timm(weights: Mapping[str, Tensor]) -> Weights:
    """Our names are timm's."""
    return dict(weights)


def from_huggingface(weights: Mapping[str, Tensor]) -> Weights:
    """ViTForImageClassification or ViTModel, whose pooler is the paper's pre-logits layer."""
    bare = {name.removeprefix("vit."): value for name, value in weights.items()}
    return join_qkv(rename(bare, HUGGINGFACE, "huggingface"))


def from_torchvision(weights: Mapping[str, Tensor]) -> Weights:
    """torchvision.models.VisionTransformer."""
    return rename(weights, TORCHVISION, "torchvision")


def from_jax(arrays: Mapping[str, Any]) -> Weights:
    """Arrays of an .npz of google-research/vision_transformer.

    Flax keeps inputs before outputs: dense (in, out), convolution (height, width, in, out). Heads are an axis
    of their own: q, k and v (D, h, d), out (h, d, D). "scale" is the weight of a layer norm.
    """
    converted: Weights = {}
    for name, array in rename(arrays, JAX, "jax").items():
        layer, kind = name.rsplit(".", 1) if "." in name else ("", name)
        value = torch.as_tensor(array)
        if kind == "kernel" and value.ndim == 4:
            value = value.permute(3, 2, 0, 1)
        elif kind == "kernel":
            value = (value.flatten(0, 1) if layer.endswith(".proj") else value.flatten(1)).T
        elif kind == "bias":
            value = value.flatten()
        converted[name.replace(".kernel", ".weight").replace(".scale", ".weight")] = value
    return join_qkv(converted)


SOURCES: dict[str, Callable[[Mapping[str, Any]], Weights]] = {
    "timm": from_timm,
    "huggingface": from_huggingface,
    "torchvision": from_torchvision,
    "jax": from_jax,
}


def load(
    model: VisionTransformer,
    weights: Mapping[str, Any],
    source: str,
    resize: str = "bicubic",
    old_grid: Grid | None = None,
) -> VisionTransformer:
    """Copy a library's weights into the model, in place, and return it. Nothing changes when it raises.

    Position embeddings of another length are interpolated by `resize`, a name of `resize_positions.METHODS`;
    `old_grid`, (height, width) in patches, is the grid they were trained on, square if not given.
    Raises ValueError for an unknown source, and where names or shapes of weights and model differ.
    """
    if source not in SOURCES:
        raise ValueError(f"source={source!r} is unknown; choose one of {', '.join(SOURCES)}")
    converted, expected = SOURCES[source](weights), model.state_dict()
    missing = [name for name in expected if name not in converted]
    extra = [name for name in converted if name not in expected]
    if missing or extra:
        raise ValueError(f"weights of source={source!r} do not fit the model.{reasons(missing, extra)}")
    positions = converted["pos_embed"]
    if old_grid is not None or positions.shape[1] != expected["pos_embed"].shape[1]:
        side = int((positions.shape[1] - model.num_prefix_tokens) ** 0.5)
        converted["pos_embed"] = resize_positions(positions, old_grid or (side, side), model.grid, resize)
    for name, value in converted.items():
        if value.shape != expected[name].shape:
            raise ValueError(
                f"weights[{name!r}] has shape {tuple(value.shape)}, the model needs "
                f"{tuple(expected[name].shape)}; build the model with the sizes of the weights"
            )
    model.load_state_dict(converted)
    return model


# What a name that only one side has says about the model, and the option that changes it.
FIXES = {
    "pre_logits": ("representation_size=<width of the layer>", "representation_size=None"),
    "fc_norm": ("norm_after_pool=True", "norm_after_pool=False"),
    "cls_token": ("class_token=True", "class_token=False and pool='gap'"),
    "attn.qkv.bias": ("qkv_bias=True", "qkv_bias=False"),
    "head": ("num_classes=<number of classes>", "num_classes=0"),
}


def reasons(missing: list[str], extra: list[str]) -> str:
    """Name what is missing and what is left over, with the options of the model that make them agree."""
    text = ""
    for names, problem, index in ((missing, "Missing", 1), (extra, "Not in the model", 0)):
        if names:
            fixes = [fix[index] for part, fix in FIXES.items() if any(part in name for name in names)]
            text += f" {problem}: {listed(names)}"
            text += f"; build the model with {', '.join(fixes)}." if fixes else "."
    return text
