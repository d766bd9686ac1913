"""A Vision Transformer from tensor operations, F.linear and F.layer_norm: the paper's equations 1 to 4.

Dosovitskiy et al. 2020, section 3.1, in the order in which data flows. There are no modules: the parameters
are a dictionary of tensors with timm's names, so the state dict of `vit.VisionTransformer` fits as it is.

Shapes: B images, C channels, patch size P, N = H·W / P² patches, T = N + 1 tokens ([CLS] and the patches),
width D, h heads of size d = D / h, K classes.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Parameters = dict[str, Tensor]
EPS = 1e-6


def patchify(images: Float[Tensor, "B C H W"], patch_size: int) -> Float[Tensor, "B N P*P*C"]:
    """x → x_p: cut images into patches, row by row; inside a patch row, column, channel (channel fastest).

    Raises ValueError when the patches do not fill the image exactly.
    """
    batch, channels, height, width = images.shape
    if patch_size < 1 or height % patch_size or width % patch_size:
        raise ValueError(f"images of {height} × {width} pixels are not divisible by patch_size={patch_size}")
    rows, columns = height // patch_size, width // patch_size
    pixels = images.reshape(batch, channels, rows, patch_size, columns, patch_size)
    return pixels.permute(0, 2, 4, 3, 5, 1).reshape(batch, rows * columns, patch_size * patch_size * channels)


def embed(images: Float[Tensor, "B C H W"], params: Parameters) -> Float[Tensor, "B T D"]:
    """Equation 1: z_0 = [x_class; x_p¹E; …; x_pᴺE] + E_pos."""
    kernel = params["patch_embed.proj.weight"]  # (D, C, P, P): E, stored as the kernel of a convolution
    E = kernel.permute(0, 2, 3, 1).flatten(1)  # (D, P·P·C), in the order of `patchify`
    x_p = patchify(images, patch_size=kernel.shape[-1])
    x_class = params["cls_token"].expand(len(images), -1, -1)
    z = torch.cat([x_class, F.linear(x_p, E, params["patch_embed.proj.bias"])], dim=1)
    E_pos = params["pos_embed"]
    if z.shape[1] != E_pos.shape[1]:  # one position would otherwise be added to every token
        raise ValueError(
            f"images give {z.shape[1]} tokens, but params['pos_embed'] has {E_pos.shape[1]} positions; "
            f"resize the images or interpolate pos_embed"
        )
    return z + E_pos


def dense(z: Float[Tensor, "... I"], params: Parameters, name: str) -> Float[Tensor, "... O"]:
    """z W + b: the same linear map for every token."""
    return F.linear(z, params[f"{name}.weight"], params[f"{name}.bias"])


def norm(z: Float[Tensor, "... D"], params: Parameters, name: str) -> Float[Tensor, "... D"]:
    """LN: each token gets mean 0 and variance 1, then a learned scale and shift."""
    return F.layer_norm(z, z.shape[-1:], params[f"{name}.weight"], params[f"{name}.bias"], eps=EPS)


def msa(z: Float[Tensor, "B T D"], params: Parameters, block: str, num_heads: int) -> Float[Tensor, "B T D"]:
    """Multi-head self-attention, equations 5 to 8 (appendix A): softmax(q kᵀ / √d) v in each head."""
    batch, tokens, dim = z.shape
    if num_heads < 1 or dim % num_heads:
        raise ValueError(f"tokens of width {dim} are not divisible by num_heads={num_heads}")
    d = dim // num_heads
    qkv = dense(z, params, f"{block}.attn.qkv")  # (B, T, 3·D)
    q, k, v = qkv.reshape(batch, tokens, 3, num_heads, d).permute(2, 0, 3, 1, 4)  # each (B, h, T, d)
    A = (q @ k.transpose(-2, -1) / math.sqrt(d)).softmax(dim=-1)  # (B, h, T, T); each row sums to one
    heads = (A @ v).transpose(1, 2).reshape(batch, tokens, dim)  # heads side by side
    return dense(heads, params, f"{block}.attn.proj")


def mlp(z: Float[Tensor, "B T D"], params: Parameters, block: str) -> Float[Tensor, "B T D"]:
    """Two layers with a GELU, x·Φ(x), between them; the same for every token."""
    hidden = dense(z, params, f"{block}.mlp.fc1")
    hidden = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
    return dense(hidden, params, f"{block}.mlp.fc2")


def encode(z: Float[Tensor, "B T D"], params: Parameters, num_heads: int) -> Float[Tensor, "B T D"]:
    """z_0 → z_L, block after block; there are as many blocks as `params` holds."""
    depth = sum(name.endswith(".norm1.weight") for name in params)
    for block in (f"blocks.{i}" for i in range(depth)):
        z = msa(norm(z, params, f"{block}.norm1"), params, block, num_heads) + z  # equation 2: z'_l
        z = mlp(norm(z, params, f"{block}.norm2"), params, block) + z  # equation 3: z_l
    return z


def classify(images: Float[Tensor, "B C H W"], params: Parameters, num_heads: int) -> Float[Tensor, "B K"]:
    """Images to logits: equations 1 to 4 and the linear head."""
    z_0 = embed(images, params)
    z_L = encode(z_0, params, num_heads)
    y = norm(z_L[:, 0], params, "norm")  # equation 4: y = LN(z_L⁰), the [CLS] token
    return dense(y, params, "head")


def initial_parameters(
    image_size: int | tuple[int, int],
    patch_size: int,
    in_channels: int,
    num_classes: int,
    dim: int,
    depth: int,
    mlp_dim: int,
) -> Parameters:
    """Return fresh parameters: matrices of variance 1 / inputs, E_pos of std 0.02, [CLS] and head zero."""
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    num_patches = (height // patch_size) * (width // patch_size)

    def linear(name: str, outputs: int, *inputs: int) -> Parameters:
        weight = torch.randn(outputs, *inputs) / math.sqrt(math.prod(inputs))
        return {f"{name}.weight": weight, f"{name}.bias": torch.zeros(outputs)}

    def layer_norm(name: str) -> Parameters:
        return {f"{name}.weight": torch.ones(dim), f"{name}.bias": torch.zeros(dim)}

    params = {"cls_token": torch.zeros(1, 1, dim), "pos_embed": 0.02 * torch.randn(1, 1 + num_patches, dim)}
    params |= linear("patch_embed.proj", dim, in_channels, patch_size, patch_size)
    for i in range(depth):
        params |= layer_norm(f"blocks.{i}.norm1")
        params |= linear(f"blocks.{i}.attn.qkv", 3 * dim, dim) | linear(f"blocks.{i}.attn.proj", dim, dim)
        params |= layer_norm(f"blocks.{i}.norm2")
        params |= linear(f"blocks.{i}.mlp.fc1", mlp_dim, dim) | linear(f"blocks.{i}.mlp.fc2", dim, mlp_dim)
    params |= layer_norm("norm")
    return params | {"head.weight": torch.zeros(num_classes, dim), "head.bias": torch.zeros(num_classes)}
