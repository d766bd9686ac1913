"""The values a Vision Transformer starts from.

The paper does not list them; these are the ones of the authors' code (google-research/vision_transformer), on
which its results rest. The class token and the head start at zero, so the first logits are zero for every
image and the first loss is log K: no class is favoured before training.
"""

import math

import torch
from torch import nn

# A normal distribution of standard deviation 1, cut off at ±2, is left with this standard deviation.
CUT_STD = 0.87962566103423978


@torch.no_grad()
def initialise(model: nn.Module) -> None:
    """Set every parameter of a `vit.VisionTransformer` in place, from torch's global random generator.

    Layer norms keep torch's initial values, scale 1 and shift 0.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            set_weight(name, module.weight)
            if module.bias is not None:
                nn.init.normal_(module.bias, std=1e-6 if ".mlp." in name else 0.0)
    for name, parameter in model.named_parameters(recurse=False):
        nn.init.normal_(parameter, std=0.02 if name == "pos_embed" else 0.0)  # 0.02 as BERT; cls_token 0


def set_weight(name: str, weight: torch.Tensor) -> None:
    """Set the weight (outputs, inputs, ...) of the dense layer or convolution called `name`."""
    if name == "head":
        nn.init.zeros_(weight)
    elif name in ("patch_embed.proj", "pre_logits.fc"):
        # Variance 1 / inputs ("LeCun normal"): the outputs vary as much as the inputs.
        std = 1 / (math.sqrt(weight[0].numel()) * CUT_STD)
        nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)
    else:
        # q, k and v are three layers in one matrix: each keeps the range that its own size gives.
        for layer in weight.chunk(3 if name.endswith("qkv") else 1):
            nn.init.xavier_uniform_(layer)
