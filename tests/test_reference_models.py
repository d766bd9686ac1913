"""The two reference models: the equations written out (Level 2) and the paper's model (Level 3)."""

import ast
import inspect
import math

import pytest
import torch
from torch import nn
from torch.func import functional_call

from autograder.reference import lowlevel, resize_positions
from autograder.reference.resize_positions import METHODS
from autograder.reference.variants import CONVENTIONS, VARIANTS
from autograder.reference.vit import VisionTransformer, for_fine_tuning, patch_grid, vit
from autograder.reference.vit_blocks import EncoderBlock, Mlp, MultiHeadSelfAttention

# No two sizes are equal: a transposed axis cannot go unnoticed.
TINY = {
    "image_size": (4, 6), "patch_size": 2, "in_channels": 3, "num_classes": 5,
    "dim": 8, "depth": 2, "num_heads": 2, "mlp_dim": 10,
}  # fmt: skip


def tiny(**options) -> VisionTransformer:
    """Return a float64 model in which every parameter is random, those that start at zero or one too."""
    model = VisionTransformer(**(TINY | options)).double().eval()
    return randomise(model)


def randomise(model: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model


def images(batch: int = 2, height: int = 4, width: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, 3, height, width, dtype=torch.float64, generator=generator)


def largest_difference(a: torch.Tensor, b: torch.Tensor) -> float:
    assert a.shape == b.shape
    return (a - b).abs().max().item()


# Variants


@pytest.mark.parametrize("name", VARIANTS)
def test_variant_has_exactly_the_parameters_it_states(name):
    with torch.device("meta"):  # shapes without memory: H/14 would take 2.5 GB
        model = vit(name)
    assert sum(p.numel() for p in model.parameters()) == VARIANTS[name].parameters


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("Ti/16", 5_717_416), ("S/16", 22_050_664), ("B/16", 86_567_656), ("B/32", 88_224_232),
        ("L/16", 304_326_632), ("L/32", 306_535_400), ("H/14", 632_045_800),
    ],
)  # fmt: skip
def test_stated_parameter_counts(name, count):
    assert VARIANTS[name].parameters == count


@pytest.mark.parametrize(("name", "millions"), [("B/16", 86), ("L/32", 307), ("H/14", 632)])
def test_table_1_of_the_paper_counts_the_pre_logits_layer_and_no_classifier(name, millions):
    with torch.device("meta"):
        model = vit(name, num_classes=0, representation_size=VARIANTS[name].dim)
    count = sum(p.numel() for p in model.parameters())
    assert round(count / 1e6) == millions


def test_the_papers_307_million_do_not_fit_large_16():
    with torch.device("meta"):
        counts = [
            sum(p.numel() for p in vit("L/16", num_classes=classes, representation_size=size).parameters())
            for classes in (0, 1000)
            for size in (None, 1024)
        ]
    assert 307 not in [round(count / 1e6) for count in counts]


@pytest.mark.parametrize("name", VARIANTS)
def test_heads_have_64_dimensions_except_those_of_huge(name):
    variant = VARIANTS[name]
    assert variant.dim // variant.num_heads == (80 if name == "H/14" else 64)
    assert variant.mlp_dim == 4 * variant.dim


@pytest.mark.parametrize(
    ("image_size", "grid"), [(224, (14, 14)), (384, (24, 24)), ((224, 160), (14, 10)), ((160, 224), (10, 14))]
)
def test_image_size_is_a_number_or_height_and_width(image_size, grid):
    with torch.device("meta"):
        model = vit("B/16", image_size=image_size)
    assert model.grid == grid
    assert model.pos_embed.shape == (1, 1 + grid[0] * grid[1], 768)


# Level 2 against Level 3


@pytest.mark.parametrize("batch", [1, 3])
def test_the_written_out_equations_give_the_logits_of_the_model(batch):
    model, x = tiny(), images(batch)
    assert largest_difference(lowlevel.classify(x, model.state_dict(), num_heads=2), model(x)) < 1e-12


def test_both_give_the_same_gradient_to_every_parameter_and_to_the_images():
    model, x = tiny(), images()
    weights = torch.randn(2, 5, dtype=torch.float64)
    x.requires_grad_()
    inputs = (*model.parameters(), x)
    expected = torch.autograd.grad((model(x) * weights).sum(), inputs)
    params = dict(model.named_parameters())
    given = torch.autograd.grad((lowlevel.classify(x, params, num_heads=2) * weights).sum(), inputs)
    assert max(map(largest_difference, given, expected)) < 1e-12
    assert all(gradient.abs().max() > 1e-6 for gradient in given)


@pytest.mark.parametrize("image_size", [8, (4, 6)])
def test_low_level_parameters_have_the_names_and_shapes_of_the_model(image_size):
    sizes = TINY | {"image_size": image_size}
    model = VisionTransformer(**sizes)
    del sizes["num_heads"]
    params = lowlevel.initial_parameters(**sizes)
    assert {n: p.shape for n, p in params.items()} == {n: p.shape for n, p in model.state_dict().items()}


def test_low_level_file_uses_no_module_and_of_functional_only_linear_and_layer_norm():
    tree = ast.parse(inspect.getsource(lowlevel))
    used = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert {name for name in used if name.startswith("F.")} == {"F.linear", "F.layer_norm"}
    assert not [name for name in used if name.startswith(("nn.", "torch.nn."))]


def test_patchify_keeps_rows_columns_and_channels_in_order():
    image = torch.arange(2 * 4 * 6).reshape(1, 2, 4, 6)
    second_row_first_patch = lowlevel.patchify(image, 2)[0, 3]
    assert second_row_first_patch.tolist() == [12, 36, 13, 37, 18, 42, 19, 43]


# Gradients against finite differences


SMALLEST = {
    "image_size": (2, 4), "patch_size": 2, "in_channels": 1, "num_classes": 3,
    "dim": 4, "depth": 2, "num_heads": 2, "mlp_dim": 5,
}  # fmt: skip


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"pool": "gap"},
        {"pool": "gap", "norm_after_pool": True, "class_token": False},
        {"representation_size": 3, "gelu": "tanh"},
        {"qkv_bias": False, "norm_eps": 1e-3},
    ],
    ids=str,
)
def test_gradient_of_the_model_agrees_with_finite_differences(options):
    model = tiny(**(SMALLEST | options))
    names, values = zip(*model.named_parameters(), strict=True)
    x = images(2, 2, 4)[:, :1].requires_grad_()

    def logits(x, *parameters):
        return functional_call(model, dict(zip(names, parameters, strict=True)), (x,))

    assert torch.autograd.gradcheck(logits, (x, *values))


def test_gradient_of_the_written_out_equations_agrees_with_finite_differences():
    model = tiny(**SMALLEST)
    names, values = zip(*model.named_parameters(), strict=True)
    x = images(2, 2, 4)[:, :1].requires_grad_()

    def logits(x, *parameters):
        return lowlevel.classify(x, dict(zip(names, parameters, strict=True)), num_heads=2)

    assert torch.autograd.gradcheck(logits, (x, *values))


# What the model computes


@pytest.mark.parametrize("patch", range(6))
@pytest.mark.parametrize(
    "options", [{}, {"pool": "gap"}, {"pool": "gap", "class_token": False, "norm_after_pool": True}], ids=str
)
def test_every_patch_changes_the_logits(patch, options):
    model, x = tiny(**options), images(1)
    row, column = divmod(patch, 3)
    changed = x.clone()
    changed[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] += 1
    assert largest_difference(model(changed), model(x)) > 1e-6


def test_without_positions_the_order_of_patches_does_not_matter_and_with_them_it_does():
    model, x = tiny(), images(1)
    swapped = x.flip(2).unflatten(2, (2, 2)).flip(3).flatten(2, 3)  # the two rows of patches change places
    assert largest_difference(model(swapped), model(x)) > 1e-6
    nn.init.zeros_(model.pos_embed)
    assert largest_difference(model(swapped), model(x)) < 1e-12


def test_images_of_a_batch_do_not_see_each_other():
    model, x = tiny(), images(3)
    assert largest_difference(torch.cat([model(image[None]) for image in x]), model(x)) < 1e-12


def test_cls_reads_the_normed_first_token():
    model, x = tiny(), images()
    expected = model.head(model.norm(model.blocks(model_tokens(model, x)))[:, 0])
    assert largest_difference(model(x), expected) < 1e-12


def test_gap_is_the_mean_of_the_normed_patch_tokens_without_cls():
    model, x = tiny(pool="gap"), images()
    expected = model.head(model.norm(model.blocks(model_tokens(model, x)))[:, 1:].mean(1))
    assert largest_difference(model(x), expected) < 1e-12


def model_tokens(model: VisionTransformer, x: torch.Tensor) -> torch.Tensor:
    """Return z_0 of equation 1."""
    return torch.cat([model.cls_token.expand(len(x), 1, -1), model.patch_embed(x)], dim=1) + model.pos_embed


def test_pre_logits_layer_is_a_dense_layer_with_tanh_before_the_head():
    x = images()
    with_layer, without = tiny(representation_size=7, num_classes=0), tiny(num_classes=0)
    layer = with_layer.pre_logits.fc
    assert layer.weight.shape == (7, 8)
    without.load_state_dict(with_layer.state_dict(), strict=False)
    expected = torch.tanh(without(x) @ layer.weight.T + layer.bias)
    assert largest_difference(with_layer(x), expected) < 1e-12


def test_no_classes_means_features():
    assert tiny(num_classes=0)(images()).shape == (2, 8)


# Dropout (appendix B.1)


def test_dropout_follows_the_positions_and_every_dense_layer_but_qkv():
    model, seen = tiny(dropout=0.5, depth=1).train(), []
    produced = {}  # id of a tensor that a layer returned → the layer

    def note(name):
        def hook(module, inputs, output):
            if isinstance(module, nn.Dropout):
                seen.append(produced.get(id(inputs[0]), "no layer"))
            produced[id(output)] = name
            keep.append(output)  # an id is only good while its tensor lives

        return hook

    keep: list[torch.Tensor] = []
    for name, module in model.named_modules():
        if not list(module.children()):
            module.register_forward_hook(note(name))
    model(images())
    assert seen == [
        "no layer", "blocks.0.attn.proj", "blocks.0.mlp.act", "blocks.0.mlp.fc2"
    ]  # fmt: skip


def test_first_dropout_acts_on_the_sum_of_tokens_and_positions():
    model, x, seen = tiny(dropout=0.5).train(), images(), []
    model.pos_drop.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    model(x)
    assert largest_difference(seen[0], model_tokens(model, x)) < 1e-12


def test_dropout_acts_in_training_mode_only():
    model, x = tiny(dropout=0.5), images()
    assert torch.equal(model(x), model(x))
    model.train()
    assert not torch.equal(model(x), model(x))


def test_no_dropout_by_default():
    model, x = tiny().train(), images()
    assert torch.equal(model(x), model(x))


# Initial values


@pytest.fixture(scope="module")
def fresh() -> VisionTransformer:
    torch.manual_seed(0)
    sizes = {"dim": 192, "depth": 1, "num_heads": 3, "mlp_dim": 768, "representation_size": 192}
    return VisionTransformer(32, 4, 3, 10, **sizes)


@pytest.mark.parametrize(
    "name", ["cls_token", "head.weight", "head.bias", "patch_embed.proj.bias", "blocks.0.attn.qkv.bias",
             "blocks.0.attn.proj.bias", "blocks.0.norm1.bias", "norm.bias", "pre_logits.fc.bias"],
)  # fmt: skip
def test_starts_at_zero(fresh, name):
    assert not fresh.state_dict()[name].any()


@pytest.mark.parametrize(
    ("name", "std"),
    [
        ("pos_embed", 0.02),
        ("patch_embed.proj.weight", 48**-0.5),
        ("blocks.0.attn.qkv.weight", (2 / (192 + 192)) ** 0.5),  # as three layers of 192 → 192
        ("blocks.0.attn.proj.weight", (2 / (192 + 192)) ** 0.5),
        ("blocks.0.mlp.fc1.weight", (2 / (192 + 768)) ** 0.5),
        ("blocks.0.mlp.fc1.bias", 1e-6),
        ("blocks.0.mlp.fc2.weight", (2 / (192 + 768)) ** 0.5),
        ("blocks.0.mlp.fc2.bias", 1e-6),
        ("pre_logits.fc.weight", 192**-0.5),
    ],
)
def test_starts_random_with_the_standard_deviation_of_the_authors_code(fresh, name, std):
    value = fresh.state_dict()[name]
    tolerance = 4 / math.sqrt(2 * value.numel())  # four standard errors of a standard deviation
    assert value.std().item() == pytest.approx(std, rel=tolerance)
    assert abs(value.mean().item()) < 4 * std / math.sqrt(value.numel())


def test_first_loss_is_that_of_guessing():
    model = VisionTransformer(**TINY).double()
    loss = nn.functional.cross_entropy(model(images()), torch.tensor([0, 3]))
    assert loss.item() == pytest.approx(math.log(5))


def test_low_level_parameters_start_with_logits_of_zero():
    sizes = {name: value for name, value in TINY.items() if name != "num_heads"}
    params = lowlevel.initial_parameters(**sizes)
    assert not lowlevel.classify(images().float(), params, num_heads=2).any()
    assert params["pos_embed"].std() < 0.05
    assert params["blocks.1.norm2.weight"].eq(1).all()


# Fine-tuning form


def test_fine_tuning_form_has_one_linear_head_of_zeros_and_keeps_the_rest():
    model = tiny(representation_size=7)
    tuned = for_fine_tuning(model, num_classes=4)
    assert not any(name.startswith("pre_logits") for name in tuned.state_dict())
    assert tuned.head.weight.shape == (4, 8)
    assert not tuned(images()).any()
    kept = {name: value for name, value in tuned.state_dict().items() if not name.startswith("head")}
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in kept.items())


def test_fine_tuning_form_is_a_copy():
    model, x = tiny(representation_size=7), images()
    before = model(x)
    tuned = for_fine_tuning(model, num_classes=4, image_size=(8, 10))
    for parameter in tuned.parameters():
        nn.init.ones_(parameter)
    assert torch.equal(model(x), before)


@pytest.mark.parametrize("method", METHODS)
def test_fine_tuning_form_resizes_positions_by_the_method_asked_for(method):
    model = tiny()
    tuned = for_fine_tuning(model, num_classes=4, image_size=(8, 10), resize=method)
    expected = resize_positions.resize_positions(model.pos_embed, (2, 3), (4, 5), method)
    assert torch.equal(tuned.pos_embed, expected)


def test_fine_tuning_form_takes_images_of_the_new_size():
    tuned = for_fine_tuning(tiny(), num_classes=4, image_size=(8, 10))
    assert tuned.grid == (4, 5)
    assert tuned(images(2, 8, 10)).shape == (2, 4)
    assert tuned.pos_embed.requires_grad
    assert tuned.pos_embed.is_leaf


# Positions for another size


@pytest.mark.parametrize("method", METHODS)
def test_resizing_keeps_cls_and_the_same_grid(method):
    pos_embed = torch.randn(1, 7, 4)
    resized = resize_positions.resize_positions(pos_embed, (2, 3), (4, 5), method)
    assert resized.shape == (1, 21, 4)
    assert torch.equal(resized[:, 0], pos_embed[:, 0])
    assert torch.equal(resize_positions.resize_positions(pos_embed, (2, 3), (2, 3), method), pos_embed)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("axis", "length"), [(0, 8), (1, 9)], ids=["rows", "columns"])
def test_resizing_a_slope_keeps_its_direction(method, axis, length):
    slope = torch.arange(4.0 if axis == 0 else 5.0)
    grid = slope[:, None].expand(4, 5) if axis == 0 else slope[None].expand(4, 5)
    resized = resize_positions.resize_positions(grid.reshape(1, 20, 1), (4, 5), (8, 9), method)
    steps = resized.reshape(8, 9).diff(dim=axis)
    assert (steps >= -0.1).all()
    assert steps.sum(axis).min() > 2
    assert resized.reshape(8, 9).diff(dim=1 - axis).abs().max() < 1e-5


def test_methods_differ():
    pos_embed = torch.randn(1, 17, 3)
    resized = [resize_positions.resize_positions(pos_embed, (4, 4), (3, 3), method) for method in METHODS]
    assert all(largest_difference(a, b) > 1e-3 for i, a in enumerate(resized) for b in resized[:i]), (
        "two names for one method"
    )


# Errors


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dim": 9}, ["dim=9", "num_heads=2"]),
        ({"num_heads": 0}, ["num_heads=0"]),
        ({"dim": 0}, ["dim=0"]),
        ({"depth": 0}, ["depth=0"]),
        ({"mlp_dim": -1}, ["mlp_dim=-1"]),
        ({"in_channels": 0}, ["in_channels=0"]),
        ({"num_classes": -1}, ["num_classes=-1"]),
        ({"representation_size": 0}, ["representation_size=0"]),
        ({"patch_size": 0}, ["patch_size=0"]),
        ({"image_size": (4, 7)}, ["image_size=(4, 7)", "patch_size=2"]),
        ({"image_size": (5, 6)}, ["image_size=(5, 6)", "patch_size=2"]),
        ({"image_size": 0}, ["image_size=0"]),
        ({"pool": "mean"}, ["pool='mean'", "gap"]),
        ({"gelu": "erf"}, ["gelu='erf'", "exact"]),
        ({"class_token": False}, ["class_token=False", "pool='gap'"]),
        ({"dropout": 1.5}, ["1.5"]),
    ],
    ids=str,
)
def test_bad_sizes_and_options_are_named_with_their_value(options, words):
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the words are checked below
        VisionTransformer(**(TINY | options))
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize("shape", [(2, 3, 6, 4), (2, 3, 8, 12), (2, 1, 4, 6), (3, 4, 6)])
def test_images_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"images have shape .* the model is for \(batch, 3, 4, 6\)"):
        tiny()(torch.zeros(shape, dtype=torch.float64))


def test_unknown_variant_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match=r"name='B16' is unknown.*B/16"):
        vit("B16")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(1, 7, 4), (2, 3), (4, 5), "nearest"), "method='nearest'.*bicubic"),
        ((torch.zeros(1, 8, 4), (2, 3), (4, 5)), r"8 embeddings.*old_grid=\(2, 3\)"),
        ((torch.zeros(1, 7, 4), (2, 3), (0, 5)), r"new_grid=\(0, 5\)"),
    ],
)
def test_positions_that_cannot_be_resized(arguments, message):
    with pytest.raises(ValueError, match=message):
        resize_positions.resize_positions(*arguments)


@pytest.mark.parametrize("patch_size", [4, 0])
def test_low_level_refuses_patches_that_do_not_fill_the_image(patch_size):
    with pytest.raises(ValueError, match=f"4 × 6 .*patch_size={patch_size}"):
        lowlevel.patchify(images(), patch_size)


def test_low_level_refuses_images_of_another_size():
    with pytest.raises(ValueError, match=r"5 tokens.*7 positions"):
        lowlevel.classify(images(2, 4, 4), tiny().state_dict(), num_heads=2)


@pytest.mark.parametrize("num_heads", [3, 0])
def test_low_level_refuses_heads_that_do_not_divide_the_width(num_heads):
    with pytest.raises(ValueError, match=f"width 8.*num_heads={num_heads}"):
        lowlevel.classify(images(), tiny().state_dict(), num_heads=num_heads)


def test_fine_tuning_needs_a_class():
    with pytest.raises(ValueError, match="num_classes=0"):
        for_fine_tuning(tiny(), num_classes=0)


# Details that other files rely on


def test_grid_is_height_then_width():
    assert patch_grid((32, 48), 16) == (2, 3)


def test_convention_names_are_options_of_the_model():
    for options in CONVENTIONS.values():
        VisionTransformer(**TINY, **options)


def test_blocks_stand_alone():
    z = torch.randn(2, 3, 8)
    for part in (MultiHeadSelfAttention(8, 2), Mlp(8, 10), EncoderBlock(8, 2, 10)):
        assert part(z).shape == z.shape
    assert tiny().blocks[1].attn.num_heads == 2
