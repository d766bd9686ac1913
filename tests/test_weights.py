"""The paper's model gives the logits of timm, Hugging Face, torchvision and the authors' JAX code.

Every library's model is built from its configuration and filled with random numbers, so nothing is downloaded
and no layer is trivially zero or one. Where the mathematics agree, logits agree to 1e-10 in float64; where a
library deviates, an option of the model, by name, removes the difference.
"""

import re

import numpy as np
import pytest
import safetensors.torch
import scipy.ndimage
import timm
import timm.layers
import torch
import torchvision
import transformers
from torch import nn

from autograder.reference import lowlevel, weights
from autograder.reference.resize_positions import METHODS, Grid, resize_positions
from autograder.reference.variants import CONVENTIONS
from autograder.reference.vit import VisionTransformer

AGREE = 1e-10
SIZES = {
    "image_size": (8, 12), "patch_size": 4, "in_channels": 3, "num_classes": 5,
    "dim": 24, "depth": 3, "num_heads": 3, "mlp_dim": 60,
}  # fmt: skip
SQUARE = SIZES | {"image_size": 12}  # torchvision and the JAX code take square images only
BASE = {
    "image_size": 224, "patch_size": 16, "in_channels": 3, "num_classes": 1000,
    "dim": 768, "depth": 12, "num_heads": 12, "mlp_dim": 3072,
}  # fmt: skip


def randomise(model: nn.Module) -> nn.Module:
    """Fill every parameter with different numbers, of a size that keeps activations near 1, in float64."""
    generator = torch.Generator().manual_seed(0)
    model = model.double().eval()
    for name, parameter in model.named_parameters():
        inputs = parameter[0].numel() if parameter.ndim in (2, 4) else 4
        centre = 1.0 if parameter.ndim == 1 and name.endswith("weight") else 0.0  # the scale of a layer norm
        parameter.data = (
            centre + torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * inputs**-0.5
        )
    return model


def timm_model(sizes: dict, **options) -> nn.Module:
    return randomise(
        timm.models.VisionTransformer(
            img_size=sizes["image_size"], patch_size=sizes["patch_size"], in_chans=sizes["in_channels"],
            num_classes=sizes["num_classes"], embed_dim=sizes["dim"], depth=sizes["depth"],
            num_heads=sizes["num_heads"], mlp_ratio=sizes["mlp_dim"] / sizes["dim"],
            weight_init="skip", **options,
        )
    )  # fmt: skip


def huggingface_config(sizes: dict, **options) -> transformers.ViTConfig:
    return transformers.ViTConfig(
        image_size=sizes["image_size"], patch_size=sizes["patch_size"], num_channels=sizes["in_channels"],
        num_labels=sizes["num_classes"], hidden_size=sizes["dim"], num_hidden_layers=sizes["depth"],
        num_attention_heads=sizes["num_heads"], intermediate_size=sizes["mlp_dim"],
        # "eager" rounds the attention weights to float32
        attn_implementation="sdpa", **options,
    )  # fmt: skip


class HuggingFaceLogits(nn.Module):
    """ViTForImageClassification that returns its logits, as the others do."""

    def __init__(self, config: transformers.ViTConfig) -> None:
        super().__init__()
        self.model = transformers.ViTForImageClassification(config)

    def forward(self, images: torch.Tensor, **options) -> torch.Tensor:
        return self.model(images, **options).logits

    def state_dict(self, *args, **kwargs):
        return self.model.state_dict(*args, **kwargs)

    def named_parameters(self, *args, **kwargs):
        return self.model.named_parameters(*args, **kwargs)


def huggingface_model(sizes: dict, **options) -> nn.Module:
    return randomise(HuggingFaceLogits(huggingface_config(sizes, **options)))


def torchvision_model(sizes: dict, **options) -> nn.Module:
    assert sizes["in_channels"] == 3, "torchvision takes colour images only"
    return randomise(
        torchvision.models.VisionTransformer(
            image_size=sizes["image_size"], patch_size=sizes["patch_size"], num_classes=sizes["num_classes"],
            hidden_dim=sizes["dim"], num_layers=sizes["depth"], num_heads=sizes["num_heads"],
            mlp_dim=sizes["mlp_dim"], **options,
        )
    )  # fmt: skip


LIBRARIES = {"timm": timm_model, "huggingface": huggingface_model, "torchvision": torchvision_model}


def ours(source: str, sizes: dict, state: dict, **options) -> VisionTransformer:
    """Return our model in the library's convention, with the library's weights."""
    model = VisionTransformer(**sizes, **(CONVENTIONS[source] | options)).double().eval()
    return weights.load(model, state, source)


def images(sizes: dict, batch: int = 2) -> torch.Tensor:
    size = sizes["image_size"]
    height, width = (size, size) if isinstance(size, int) else size
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, sizes["in_channels"], height, width, dtype=torch.float64, generator=generator)


def largest_difference(a: torch.Tensor, b: torch.Tensor) -> float:
    assert a.shape == b.shape
    assert a.dtype == b.dtype == torch.float64
    return (a - b).abs().max().item()


# The same mathematics


@pytest.mark.parametrize(
    ("source", "sizes"),
    [
        ("timm", SIZES), ("timm", SQUARE), ("timm", SIZES | {"in_channels": 1}),
        ("huggingface", SIZES), ("huggingface", SQUARE), ("huggingface", SIZES | {"in_channels": 1}),
        ("torchvision", SQUARE),
    ],
)  # fmt: skip
def test_logits_agree(source, sizes):
    library, x = LIBRARIES[source](sizes), images(sizes)
    logits = library(x)
    assert largest_difference(ours(source, sizes, library.state_dict())(x), logits) < AGREE
    assert logits.std(dim=0).max() > 0.1, "logits that do not depend on the image prove nothing"


@pytest.mark.parametrize("source", LIBRARIES)
@torch.no_grad()
def test_logits_of_base_16_agree(source):
    library, x = LIBRARIES[source](BASE), images(BASE, batch=1)
    assert largest_difference(ours(source, BASE, library.state_dict())(x), library(x)) < AGREE


@pytest.mark.parametrize("source", LIBRARIES)
def test_gradients_agree_for_every_parameter_and_the_images(source):
    library, x = LIBRARIES[source](SQUARE), images(SQUARE)
    model = ours(source, SQUARE, library.state_dict())
    direction = torch.randn(2, 5, dtype=torch.float64)
    ours_x, library_x = x.clone().requires_grad_(), x.clone().requires_grad_()
    (model(ours_x) * direction).sum().backward()
    (library(library_x) * direction).sum().backward()
    # A gradient is renamed and laid out as its parameter is.
    expected = weights.SOURCES[source]({name: p.grad for name, p in library.named_parameters()})
    differences = {name: largest_difference(p.grad, expected[name]) for name, p in model.named_parameters()}
    assert max(differences.values()) < AGREE, differences
    assert largest_difference(ours_x.grad, library_x.grad) < AGREE


@pytest.mark.parametrize("source", ["timm", "torchvision"])
def test_written_out_equations_agree_too(source):
    library, x = LIBRARIES[source](SQUARE), images(SQUARE)
    params = weights.SOURCES[source](library.state_dict())
    assert largest_difference(lowlevel.classify(x, params, num_heads=3), library(x)) < AGREE


@pytest.mark.parametrize(
    ("source", "options"),
    [
        ("timm", {"pos_drop_rate": 0.3, "proj_drop_rate": 0.3}),
        ("torchvision", {"dropout": 0.3}),
    ],
)
def test_dropout_hits_the_same_activations(source, options):
    # One image: torchvision's attention lays out larger batches, and so the random mask, in another order.
    library, x = LIBRARIES[source](SQUARE, **options), images(SQUARE, batch=1)
    model = ours(source, SQUARE, library.state_dict(), dropout=0.3)
    outputs = []
    for each in (model, library):
        torch.manual_seed(7)
        outputs.append(each.train()(x))
    assert largest_difference(*outputs) < AGREE
    assert largest_difference(outputs[0], model.eval()(x)) > 0.1


# Known deviations: (library, its options, ours without the named option, ours with it)

DEVIATIONS = {
    "epsilon of Hugging Face's layer norms": ("huggingface", {}, {"norm_eps": 1e-6}, {"norm_eps": 1e-12}),
    "epsilon of torch's layer norms in timm": (
        "timm", {"norm_layer": nn.LayerNorm}, {"norm_eps": 1e-6}, {"norm_eps": 1e-5},
    ),
    "tanh form of GELU in timm": (
        "timm", {"act_layer": "gelu_tanh"}, {"gelu": "exact"}, {"gelu": "tanh"},
    ),
    "tanh form of GELU in Hugging Face": (
        "huggingface", {"hidden_act": "gelu_pytorch_tanh"}, {"gelu": "exact"}, {"gelu": "tanh"},
    ),
    "timm's models that pool after the norm, without [CLS]": (
        "timm", {"global_pool": "avg", "class_token": False, "fc_norm": False},
        None, {"pool": "gap", "class_token": False},
    ),
    "timm's models that pool after the norm, with [CLS]": (
        "timm", {"global_pool": "avg", "fc_norm": False}, {"pool": "cls"}, {"pool": "gap"},
    ),
    "timm's 'avg' pools before the norm": (
        "timm", {"global_pool": "avg"}, None, {"pool": "gap", "norm_after_pool": True},
    ),
    "timm without a bias of q, k and v": ("timm", {"qkv_bias": False}, None, {"qkv_bias": False}),
    "Hugging Face without a bias of q, k and v": (
        "huggingface", {"qkv_bias": False}, None, {"qkv_bias": False},
    ),
    "torchvision's representation layer": (
        "torchvision", {"representation_size": 7}, None, {"representation_size": 7},
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("source", "library_options", "without", "option"), DEVIATIONS.values(), ids=DEVIATIONS
)
def test_named_option_removes_the_difference(source, library_options, without, option):
    library, x = LIBRARIES[source](SQUARE, **library_options), images(SQUARE)
    logits, state = library(x), library.state_dict()
    assert largest_difference(ours(source, SQUARE, state, **option)(x), logits) < AGREE
    if without is not None:
        assert largest_difference(ours(source, SQUARE, state, **without)(x), logits) > 100 * AGREE
    else:  # other parameters, so the weights do not even load; the message names the option
        with pytest.raises(ValueError, match=next(reversed(option))):
            ours(source, SQUARE, state)


def test_pooling_before_or_after_the_norm_differs():
    library, x = timm_model(SQUARE, global_pool="avg"), images(SQUARE)
    state = {name.replace("fc_norm", "norm"): value for name, value in library.state_dict().items()}
    assert largest_difference(ours("timm", SQUARE, state, pool="gap")(x), library(x)) > 0.01


@pytest.mark.parametrize(("std", "expected"), [(1.0, 2e-6), (0.01, 2e-2)])
def test_epsilon_matters_for_small_activations_only(std, expected):
    tokens = std * torch.randn(8, 256, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    normed = [nn.functional.layer_norm(tokens, (256,), eps=eps) for eps in (1e-6, 1e-12)]
    assert expected / 2 < largest_difference(*normed) < expected * 2


def test_hugging_face_pooler_is_the_pre_logits_layer():
    library = randomise(transformers.ViTModel(huggingface_config(SIZES)))
    sizes, x = SIZES | {"num_classes": 0}, images(SIZES)
    model = ours("huggingface", sizes, library.state_dict(), representation_size=24)
    outputs = library(x)
    assert largest_difference(model(x), outputs.pooler_output) < AGREE
    assert largest_difference(model.encode(x), outputs.last_hidden_state) < AGREE


def test_hugging_face_model_without_pooler_gives_features():
    library = randomise(transformers.ViTModel(huggingface_config(SIZES), add_pooling_layer=False))
    model = ours("huggingface", SIZES | {"num_classes": 0}, library.state_dict())
    x = images(SIZES)
    assert largest_difference(model(x), library(x).last_hidden_state[:, 0]) < AGREE


# Files and names of other versions


def test_file_that_hugging_face_saves_loads(tmp_path):
    library, x = huggingface_model(SIZES), images(SIZES)
    library.model.save_pretrained(tmp_path)
    state = safetensors.torch.load_file(tmp_path / "model.safetensors")
    assert largest_difference(ours("huggingface", SIZES, state)(x), library(x)) < AGREE


def test_names_of_transformers_4_load():
    state = huggingface_model(SIZES).state_dict()
    parts = {
        r"layers\.(\d+)\.attention\.o_proj": r"encoder.layer.\1.attention.output.dense",
        r"layers\.(\d+)\.attention\.q_proj": r"encoder.layer.\1.attention.attention.query",
        r"layers\.(\d+)\.attention\.k_proj": r"encoder.layer.\1.attention.attention.key",
        r"layers\.(\d+)\.attention\.v_proj": r"encoder.layer.\1.attention.attention.value",
        r"layers\.(\d+)\.mlp\.fc1": r"encoder.layer.\1.intermediate.dense",
        r"layers\.(\d+)\.mlp\.fc2": r"encoder.layer.\1.output.dense",
        r"layers\.(\d+)\.layernorm": r"encoder.layer.\1.layernorm",
    }
    old = {}
    for name, value in state.items():
        for new_part, old_part in parts.items():
            name = re.sub(new_part, old_part, name)
        old[name] = value
    assert not any(".layers." in name for name in old)
    converted, expected = weights.from_huggingface(old), weights.from_huggingface(state)
    assert converted.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in converted.items())


def test_names_of_early_torchvision_load():
    state = torchvision_model(SQUARE).state_dict()
    old_parts = {"mlp.0.": "mlp.linear_1.", "mlp.3.": "mlp.linear_2."}
    old = {re.sub(r"mlp\.[03]\.", lambda part: old_parts[part[0]], n): v for n, v in state.items()}
    assert old.keys() != state.keys()
    assert weights.from_torchvision(old).keys() == weights.from_torchvision(state).keys()


# The authors' code: an .npz with its names and layouts, and its arithmetic in numpy


def jax_arrays(sizes: dict, representation_size: int | None = None, class_token: bool = True) -> dict:
    """Return random arrays as google-research/vision_transformer saves them, in float64."""
    rng = np.random.default_rng(0)
    dim, heads, patch = sizes["dim"], sizes["num_heads"], sizes["patch_size"]
    tokens = int(class_token) + (sizes["image_size"] // patch) ** 2

    def random(*shape, inputs=4):
        return rng.standard_normal(shape) * inputs**-0.5

    def dense(name, inputs, outputs):
        return {f"{name}/kernel": random(inputs, outputs, inputs=inputs), f"{name}/bias": random(outputs)}

    def layer_norm(name):
        return {f"{name}/scale": 1 + random(dim), f"{name}/bias": random(dim)}

    arrays = {
        "embedding/kernel": random(patch, patch, sizes["in_channels"], dim, inputs=patch**2),
        "embedding/bias": random(dim),
        "Transformer/posembed_input/pos_embedding": random(1, tokens, dim),
        **({"cls": random(1, 1, dim)} if class_token else {}),
    }
    for i in range(sizes["depth"]):
        block = f"Transformer/encoderblock_{i}"
        attention = f"{block}/MultiHeadDotProductAttention_1"
        arrays |= layer_norm(f"{block}/LayerNorm_0") | layer_norm(f"{block}/LayerNorm_2")
        for part in ("query", "key", "value"):
            arrays[f"{attention}/{part}/kernel"] = random(dim, heads, dim // heads, inputs=dim)
            arrays[f"{attention}/{part}/bias"] = random(heads, dim // heads)
        arrays[f"{attention}/out/kernel"] = random(heads, dim // heads, dim, inputs=dim)
        arrays[f"{attention}/out/bias"] = random(dim)
        arrays |= dense(f"{block}/MlpBlock_3/Dense_0", dim, sizes["mlp_dim"])
        arrays |= dense(f"{block}/MlpBlock_3/Dense_1", sizes["mlp_dim"], dim)
    arrays |= layer_norm("Transformer/encoder_norm")
    if representation_size:
        arrays |= dense("pre_logits", dim, representation_size)
    return arrays | dense("head", representation_size or dim, sizes["num_classes"])


def jax_logits(arrays: dict, nhwc: np.ndarray) -> np.ndarray:
    """The forward pass of the authors' code: channels last, heads as an axis, GELU in tanh form."""
    w = arrays

    def layer_norm(x, name):
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
        return scaled * w[f"{name}/scale"] + w[f"{name}/bias"]

    def dense(x, name):
        return x @ w[f"{name}/kernel"] + w[f"{name}/bias"]

    def attention(x, name):
        q, k, v = (
            np.einsum("btD,Dhd->bhtd", x, w[f"{name}/{part}/kernel"]) + w[f"{name}/{part}/bias"][:, None]
            for part in ("query", "key", "value")
        )
        scores = np.einsum("bhqd,bhkd->bhqk", q, k) / np.sqrt(q.shape[-1])
        exponentials = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = np.einsum("bhqk,bhkd->bhqd", exponentials / exponentials.sum(-1, keepdims=True), v)
        return np.einsum("bhtd,hdD->btD", mixed, w[f"{name}/out/kernel"]) + w[f"{name}/out/bias"]

    def gelu(x):
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

    kernel = w["embedding/kernel"]
    patch, side = kernel.shape[0], nhwc.shape[1] // kernel.shape[0]
    cells = nhwc.reshape(len(nhwc), side, patch, side, patch, -1)
    x = np.einsum("brycxi,yxiD->brcD", cells, kernel) + w["embedding/bias"]
    x = x.reshape(len(nhwc), side * side, -1)
    if "cls" in w:
        x = np.concatenate([np.repeat(w["cls"], len(x), axis=0), x], axis=1)
    x = x + w["Transformer/posembed_input/pos_embedding"]
    blocks = {name.split("/")[1] for name in w if "encoderblock" in name}
    for block in (f"Transformer/encoderblock_{i}" for i in range(len(blocks))):
        x = x + attention(layer_norm(x, f"{block}/LayerNorm_0"), f"{block}/MultiHeadDotProductAttention_1")
        hidden = gelu(dense(layer_norm(x, f"{block}/LayerNorm_2"), f"{block}/MlpBlock_3/Dense_0"))
        x = x + dense(hidden, f"{block}/MlpBlock_3/Dense_1")
    x = layer_norm(x, "Transformer/encoder_norm")
    x = x[:, 0] if "cls" in w else x.mean(axis=1)
    if "pre_logits/kernel" in w:
        x = np.tanh(dense(x, "pre_logits"))
    return dense(x, "head")


@pytest.fixture
def jax_file(tmp_path):
    """Save arrays to an .npz and open it again, as one opens a published file."""

    def saved(**options):
        np.savez(tmp_path / "ViT.npz", **jax_arrays(SQUARE, **options))
        return np.load(tmp_path / "ViT.npz")

    return saved


@pytest.mark.parametrize(
    ("file_options", "options"),
    [
        ({}, {}),
        ({"representation_size": 7}, {"representation_size": 7}),
        ({"class_token": False}, {"class_token": False, "pool": "gap"}),
    ],
    ids=["fine-tuned", "pre-trained", "gap"],
)
def test_npz_of_the_authors_gives_their_logits(jax_file, file_options, options):
    arrays, x = jax_file(**file_options), images(SQUARE)
    expected = torch.from_numpy(jax_logits(dict(arrays), x.permute(0, 2, 3, 1).numpy()))
    assert largest_difference(ours("jax", SQUARE, arrays, **options)(x), expected) < AGREE


def test_the_exact_form_of_gelu_differs_from_the_authors_code(jax_file):
    arrays, x = jax_file(), images(SQUARE)
    expected = torch.from_numpy(jax_logits(dict(arrays), x.permute(0, 2, 3, 1).numpy()))
    assert largest_difference(ours("jax", SQUARE, arrays, gelu="exact")(x), expected) > 1e-5


def test_timm_reads_the_same_file_in_the_same_way(jax_file, tmp_path):
    arrays, x = jax_file(), images(SQUARE)
    library = timm_model(SQUARE, act_layer="gelu_tanh")
    library.load_pretrained(str(tmp_path / "ViT.npz"))
    assert largest_difference(ours("jax", SQUARE, arrays)(x), library(x)) < AGREE


def test_names_that_the_authors_code_writes_today_load(jax_file):
    arrays = dict(jax_file())
    today = {"Attention_1": "Attention_0", "MlpBlock_3": "MlpBlock_0", "LayerNorm_2": "LayerNorm_1"}
    renamed = {}
    for name, array in arrays.items():
        for old, new in today.items():
            name = name.replace(old, new)
        renamed[name] = array
    assert renamed.keys() != arrays.keys()
    expected = weights.from_jax(arrays)
    assert all(torch.equal(value, expected[name]) for name, value in weights.from_jax(renamed).items())


# Positions for another image size


def jax_zoom(pos_embed: torch.Tensor, old: Grid, new: Grid) -> torch.Tensor:
    grid = pos_embed[0, 1:].unflatten(0, old).numpy()
    zoomed = scipy.ndimage.zoom(grid, (new[0] / old[0], new[1] / old[1], 1), order=1)
    return torch.cat([pos_embed[:, :1], torch.from_numpy(zoomed).flatten(0, 1)[None]], dim=1)


def timm_resample(pos_embed: torch.Tensor, old: Grid, new: Grid) -> torch.Tensor:
    return timm.layers.resample_abs_pos_embed(pos_embed, new_size=list(new), old_size=list(old))


def torchvision_interpolate(pos_embed: torch.Tensor, old: Grid, new: Grid) -> torch.Tensor:
    assert (old[0], new[0]) == (old[1], new[1]), "torchvision knows square grids only"
    state = {"encoder.pos_embedding": pos_embed}
    interpolate = torchvision.models.vision_transformer.interpolate_embeddings
    return interpolate(new[0], 1, state)["encoder.pos_embedding"]


RESIZERS = {
    "linear-zoom": jax_zoom, "bicubic-antialias": timm_resample, "bicubic-corners": torchvision_interpolate
}  # fmt: skip


@pytest.mark.parametrize("new", [(9, 9), (4, 4)], ids=["larger", "smaller"])
@pytest.mark.parametrize("method", RESIZERS)
def test_positions_are_resized_as_the_library_does(method, new):
    pos_embed = torch.randn(1, 26, 6, generator=torch.Generator().manual_seed(0))
    expected = RESIZERS[method](pos_embed, (5, 5), new)
    differences = {
        name: (resize_positions(pos_embed, (5, 5), new, name) - expected).abs().max().item()
        for name in METHODS
    }
    assert differences.pop(method) < 1e-5
    assert min(differences.values()) > 1e-3, "without the named method there is a difference"


@pytest.mark.parametrize("image_size", [(20, 28), (8, 8)], ids=["larger", "smaller"])
def test_hugging_face_resizes_positions_by_bicubic(image_size):
    library, sizes = huggingface_model(SQUARE), SQUARE | {"image_size": image_size}
    state, x = library.state_dict(), images(sizes)
    expected = library(x, interpolate_pos_encoding=True)
    model = VisionTransformer(**sizes, **CONVENTIONS["huggingface"]).double().eval()
    differences = {
        method: largest_difference(weights.load(model, state, "huggingface", method)(x), expected)
        for method in METHODS
    }
    assert differences.pop("bicubic") < AGREE
    assert min(differences.values()) > 1e-3


def test_positions_of_a_grid_that_is_not_square():
    state = timm_model(SIZES).state_dict()  # a grid of 2 × 3
    model = VisionTransformer(**(SIZES | {"image_size": (16, 20)})).double()
    weights.load(model, state, "timm", old_grid=(2, 3))
    expected = resize_positions(state["pos_embed"], (2, 3), (4, 5))
    assert torch.equal(model.pos_embed, expected)


def test_positions_of_a_grid_with_the_same_number_of_patches():
    state = timm_model(SIZES).state_dict()  # a grid of 2 × 3
    model = VisionTransformer(**(SIZES | {"image_size": (12, 8)})).double()
    weights.load(model, state, "timm", old_grid=(2, 3))
    assert torch.equal(model.pos_embed, resize_positions(state["pos_embed"], (2, 3), (3, 2)))


def test_positions_without_cls_are_resized_too(jax_file):
    arrays = jax_file(class_token=False)
    sizes = SQUARE | {"image_size": 20, "pool": "gap", "class_token": False}
    model = VisionTransformer(**sizes).double()
    weights.load(model, arrays, "jax", resize="linear-zoom")
    positions = torch.from_numpy(arrays["Transformer/posembed_input/pos_embedding"])
    assert torch.equal(model.pos_embed, resize_positions(positions, (3, 3), (5, 5), "linear-zoom"))


# Errors


def load_timm(changes: dict | None = None, drop: str = "", **options) -> None:
    """Load timm's weights, with some changed or dropped, into a model with the given options."""
    state = timm_model(SIZES).state_dict()
    state = {name: value for name, value in state.items() if not drop or drop not in name}
    weights.load(VisionTransformer(**(SIZES | options)), state | (changes or {}), "timm")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"representation_size": 24}, r"Missing: pre_logits\.fc.*representation_size=None"),
        ({"num_classes": 0}, r"Not in the model: head\..*num_classes=<number of classes>"),
        ({"drop": "head"}, r"Missing: head\..*num_classes=0"),
        ({"drop": "norm1.bias"}, r"Missing: blocks\.0\.norm1\.bias"),
        ({"class_token": False, "pool": "gap"}, r"Not in the model: cls_token.*class_token=True"),
        ({"depth": 2}, r"Not in the model: blocks\.2.*12 in all"),
        ({"changes": {"blocks.0.ls1.gamma": torch.ones(24)}}, r"Not in the model: blocks\.0\.ls1\.gamma"),
        ({"num_classes": 6}, r"'head\.weight'.*\(5, 24\).*\(6, 24\)"),
        ({"image_size": (8, 16)}, r"old_grid=\(2, 2\)"),
    ],
    ids=str,
)
def test_weights_that_do_not_fit_are_named_with_the_option_that_helps(arguments, message):
    with pytest.raises(ValueError, match=message):
        load_timm(**arguments)


def test_unknown_source():
    with pytest.raises(ValueError, match=r"source='keras' is unknown.*timm, huggingface, torchvision, jax"):
        weights.load(VisionTransformer(**SIZES), {}, "keras")


def test_weights_of_another_source_are_recognised_as_such():
    with pytest.raises(ValueError, match=r"source='jax' does not know: cls_token, .* … \(44 in all\)"):
        weights.load(VisionTransformer(**SIZES), timm_model(SIZES).state_dict(), "jax")


def test_a_failed_load_changes_nothing():
    model = VisionTransformer(**(SIZES | {"num_classes": 6}))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match="shape"):
        weights.load(model, timm_model(SIZES).state_dict(), "timm")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
