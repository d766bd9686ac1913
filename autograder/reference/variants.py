"""The models of the paper as data: sizes, exact parameter counts, and where the libraries differ.

Sources: Dosovitskiy et al. 2020, Table 1 (B, L, H); Touvron et al. 2021, DeiT, Table 1 (Ti, S).
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Variant:
    """The sizes of one model. `parameters` counts 224 px, 3 channels, 1000 classes, no pre-logits layer."""

    patch_size: int
    dim: int
    depth: int
    num_heads: int
    mlp_dim: int
    parameters: int


VARIANTS = {
    #                 P    D    L   heads MLP   parameters
    "Ti/16": Variant(16, 192, 12, 3, 768, 5_717_416),
    "S/16": Variant(16, 384, 12, 6, 1536, 22_050_664),
    "B/16": Variant(16, 768, 12, 12, 3072, 86_567_656),
    "B/32": Variant(32, 768, 12, 12, 3072, 88_224_232),
    "L/16": Variant(16, 1024, 24, 16, 4096, 304_326_632),
    "L/32": Variant(32, 1024, 24, 16, 4096, 306_535_400),
    "H/14": Variant(14, 1280, 32, 16, 5120, 632_045_800),
}

# The paper names neither the form of GELU nor the epsilon of layer normalisation, and the libraries disagree.
# Each entry holds the options of `vit.VisionTransformer` that reproduce a library's default model.
CONVENTIONS: dict[str, dict[str, Any]] = {
    "timm": {"gelu": "exact", "norm_eps": 1e-6},
    "torchvision": {"gelu": "exact", "norm_eps": 1e-6},
    "huggingface": {"gelu": "exact", "norm_eps": 1e-12},
    "jax": {"gelu": "tanh", "norm_eps": 1e-6},  # google-research/vision_transformer
}
