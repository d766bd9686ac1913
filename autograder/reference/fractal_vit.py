"""A small Vision Transformer pre-trained on pictures that a formula draws: no data set, no download.

`python book/pretrain_fractals.py` makes its weights, in about five minutes on one core.
"""

from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

WEIGHTS = Path(__file__).with_name("fractal_vit.safetensors")  # float16
SIZES: dict[str, Any] = {
    "image_size": 16,
    "patch_size": 4,
    "in_channels": 1,
    "num_classes": 400,
    "dim": 64,
    "depth": 4,
    "num_heads": 4,
    "mlp_dim": 128,
}


def pretrained_state() -> dict[str, Tensor]:
    """Return the state dict of `VisionTransformer(**SIZES)` after pre-training, in float32."""
    return {name: tensor.float() for name, tensor in load_file(WEIGHTS).items()}
