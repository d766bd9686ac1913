"""Chapter 5: layer normalisation, GELU, the MLP and the encoder block."""

from collections.abc import Callable
from typing import Any

import torch

from autograder.judge import describe, differ, error_name
from autograder.probes import (
    Inputs,
    Outputs,
    arguments,
    built,
    gradients,
    manners,
    mapped,
    module_gradients,
    module_manners,
    module_start,
    module_value,
)
from autograder.reference.encoder import EncoderBlock, encoder_block, gelu, layer_norm, mlp
from autograder.spec import Assignment, Draw, Exercise, Group, Mistake, edited
from autograder.specs.patch_embedding import has_parameters

NORM, GELU, MLP = "Layer normalisation", "GELU", "The MLP"
EPS, BLOCK, HEADS = "What eps is for", "Two halves, two residuals", "Heads share the width"
MODULE, DROPOUT = "The block as a module", "Where dropout goes"
CONTRACT = "What every answer owes its caller"
F32, F64 = torch.float32, torch.float64


def norm_inputs(
    *shape: int, std: float = 1.0, shift: float = 0.0, dtype: torch.dtype = F32, **given: Any
) -> Callable[[Draw], Inputs]:
    """Draw a tensor, weight and bias of its last dimension, with other arguments as `given`."""

    def draw_norm(draw: Draw) -> Inputs:
        x = draw.normal(*shape, std=std, dtype=dtype) + shift
        return {
            "x": x,
            "weight": draw.normal(shape[-1], dtype=dtype),
            "bias": draw.normal(shape[-1], dtype=dtype),
            **given,
        }

    return draw_norm


def plain_norm(*shape: int) -> Callable[[Draw], Inputs]:
    """Draw a tensor whose tokens differ in mean and spread; weight one and bias zero."""

    def draw_plain(draw: Draw) -> Inputs:
        spread, mean = 1 + draw.normal(*shape[:-1], 1).abs(), draw.normal(*shape[:-1], 1, std=3.0)
        x = draw.normal(*shape) * spread + mean
        return {"x": x, "weight": torch.ones(shape[-1]), "bias": torch.zeros(shape[-1])}

    return draw_plain


def constant_token(draw: Draw) -> Inputs:
    """Draw tokens of which one has the same value everywhere, so that its variance is zero."""
    inputs = norm_inputs(2, 3, 4)(draw)
    inputs["x"][1, 1] = 2.0
    return inputs


def values(*shape: int, dtype: torch.dtype = F32) -> Callable[[Draw], Inputs]:
    """Draw values from about -10 to 10, with both ends and zero among them."""

    def draw_values(draw: Draw) -> Inputs:
        x = draw.normal(*shape, std=3.0, dtype=dtype)
        x.view(-1)[:3] = torch.tensor([10.0, -10.0, 0.0])
        return {"x": x}

    return draw_values


def two_layers(
    *shape: int, hidden: int, dtype: torch.dtype = F32, steep: float = 8.0, **changed: Callable[[Draw], Any]
) -> Callable[[Draw], Inputs]:
    """Draw tokens and an MLP. `steep` is the spread of the hidden values: the larger, the fewer lie in GELU's bend."""

    def draw_two(draw: Draw) -> Inputs:
        dim = shape[-1]
        inputs = {
            "x": draw.normal(*shape, dtype=dtype),
            "fc1_weight": draw.normal(hidden, dim, std=steep / dim**0.5, dtype=dtype),
            "fc1_bias": draw.normal(hidden, std=steep / 2, dtype=dtype),
            "fc2_weight": draw.normal(dim, hidden, dtype=dtype),
            "fc2_bias": draw.normal(dim, std=steep, dtype=dtype),
        }
        return {**inputs, **{name: change(draw) for name, change in changed.items()}}

    return draw_two


def block_weights(
    draw: Draw, dim: int, hidden: int, dtype: torch.dtype = F32, branch: float = 1.0, steep: float = 8.0
) -> dict[str, torch.Tensor]:
    """Draw the parameters of an encoder block.

    `branch` is the size of what each half adds, `steep` the spread of the MLP's hidden values: where it is large,
    all forms of GELU agree, so that a case shows something else.
    """
    return {
        "norm1.weight": 1 + draw.normal(dim, std=0.5, dtype=dtype),
        "norm1.bias": draw.normal(dim, std=0.5, dtype=dtype),
        "attn.qkv.weight": draw.normal(3 * dim, dim, std=dim**-0.5, dtype=dtype),
        "attn.qkv.bias": draw.normal(3 * dim, dtype=dtype),
        "attn.proj.weight": draw.normal(dim, dim, std=branch * dim**-0.5, dtype=dtype),
        "attn.proj.bias": draw.normal(dim, std=branch, dtype=dtype),
        "norm2.weight": 1 + draw.normal(dim, std=0.5, dtype=dtype),
        "norm2.bias": draw.normal(dim, std=0.5, dtype=dtype),
        "mlp.fc1.weight": draw.normal(hidden, dim, std=steep * dim**-0.5, dtype=dtype),
        "mlp.fc1.bias": draw.normal(hidden, std=steep / 2, dtype=dtype),
        "mlp.fc2.weight": draw.normal(dim, hidden, std=branch / steep * 2 / hidden**0.5, dtype=dtype),
        "mlp.fc2.bias": draw.normal(dim, std=branch, dtype=dtype),
    }


def block(
    batch: int,
    count: int,
    dim: int,
    num_heads: int,
    hidden: int,
    off: str = "",
    std: float = 1.0,
    **spread: Any,
) -> Callable[[Draw], Inputs]:
    """Draw tokens of the given spread and a block. Weight and bias of the layer `off` are zero."""

    def draw_block(draw: Draw) -> Inputs:
        params = block_weights(draw, dim, hidden, **spread)
        for name in params:
            if off and name.startswith(off):
                params[name].zero_()
        x = draw.normal(batch, count, dim, std=std, dtype=spread.get("dtype", F32))
        return {"x": x, "params": params, "num_heads": num_heads}

    return draw_block


def as_module(make: Callable[[Draw], Inputs], **extra: Any) -> Callable[[Draw], Inputs]:
    """Turn the inputs of `encoder_block` into those of an EncoderBlock with the same parameters."""

    def draw_module(draw: Draw) -> Inputs:
        inputs = make(draw)
        hidden, dim = inputs["params"]["mlp.fc1.weight"].shape
        sizes = {"dim": dim, "num_heads": inputs["num_heads"], "mlp_dim": hidden}
        return {**sizes, **extra, "_state": inputs["params"], "_forward": {"z": inputs["x"]}}

    return draw_module


def only_attention(rate: float) -> Callable[[Draw], Inputs]:
    """A block whose MLP adds nothing: what it adds in training mode shows dropout after attn.proj alone."""
    make = as_module(block(8, 12, 24, 2, 24, off="mlp.fc2"), dropout=rate)
    return lambda draw: {**make(draw), "_places": 1}


def only_fc2_bias(rate: float) -> Callable[[Draw], Inputs]:
    """A block that adds the bias of fc2 and nothing else: this shows dropout after fc2 alone."""
    make = as_module(block(8, 12, 24, 2, 24, off="attn.proj"), dropout=rate)

    def draw_bias(draw: Draw) -> Inputs:
        inputs = make(draw)
        for name in ("mlp.fc1.weight", "mlp.fc1.bias"):
            inputs["_state"][name].zero_()
        return {**inputs, "_places": 1}

    return draw_bias


def only_hidden(rate: float) -> Callable[[Draw], Inputs]:
    """A block whose fc2 hands the hidden values on: this shows dropout after GELU and after fc2 together."""
    make = as_module(block(8, 12, 24, 2, 24, off="attn.proj", steep=1.0), dropout=rate)

    def draw_hidden(draw: Draw) -> Inputs:
        inputs = make(draw)
        inputs["_state"]["mlp.fc2.weight"] = torch.eye(24)
        inputs["_state"]["mlp.fc2.bias"].zero_()
        return {**inputs, "_places": 2}

    return draw_hidden


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
    make: Callable[[Draw], Inputs],
    because: str,
    names: tuple[str, ...],
    values: tuple[Any, ...],
    **changed: Any,
) -> Callable[[Draw], Inputs]:
    """Draw inputs that a ValueError must refuse, whose message mentions one of `names` and of `values`."""
    return lambda draw: {**make(draw), **changed, "_because": because, "_names": names, "_values": values}


HEAD_NAMES = (
    "num_heads",
    "heads",
    "head",
    "n_heads",
    "nheads",
    "h",
    "dim",
    "d",
    "d_model",
    "embed_dim",
    "width",
    "head_dim",
    "channels",
    "features",
)
RATE_NAMES = ("dropout", "p", "rate", "drop", "probability", "prob", "dropout_rate")


# Probes


def keeps_params(answer: Callable[..., Any], inputs: Inputs) -> Outputs:
    """The dict of parameters after the call."""
    given = arguments(inputs)
    answer(**given)
    return {
        "the names in params after the call": sorted(given["params"]),
        "params after the call": given["params"],
    }


def module_training(answer: Callable[..., Any], inputs: Inputs) -> Outputs:
    """The module's output in training mode."""
    module = built(answer, inputs).train()
    return {"the output in training mode": module(*mapped(torch.clone, inputs["_forward"]).values())}


def runs(answer: Callable[..., Any], inputs: Inputs) -> Outputs:
    """The shape of what a new module gives in training mode: bad arguments may be refused late, but before this."""
    module = answer(**arguments(inputs)).train()
    return {"the shape of the output": list(module(*mapped(torch.clone, inputs["_forward"]).values()).shape)}


def added(answer: Callable[..., Any], inputs: Inputs) -> Outputs:
    """What a block adds to its input, in evaluation and in training mode; half as precise, which keeps files small."""
    module = built(answer, inputs)
    (z,) = inputs["_forward"].values()
    quiet = module(z.clone()) - z
    loud = module.train()(z.clone()) - z
    return {"added in evaluation mode": quiet.half(), "added in training mode": loud.half()}


# Judges


def drops_right(yours: dict[str, Any], expected: dict[str, Any], inputs: dict[str, Any]) -> str | None:
    """Judge dropout by its statistics: how much is dropped, how the rest is scaled, and that each value is by itself.

    A value survives with probability keep = (1 - dropout) for each place that it passes, and is divided by keep.
    """
    if "raised" in yours:
        return f"your code stopped with {error_name(yours['raised'])}"
    want = expected["added in training mode"]
    found: list[Any] = [yours.get(f"added in {mode} mode") for mode in ("evaluation", "training")]
    for tensor in found:
        if not isinstance(tensor, torch.Tensor) or tensor.shape != want.shape or tensor.dtype != want.dtype:
            return f"{describe(want)} expected, yours is {describe(tensor)}"
    quiet, loud = found
    keep = (1 - inputs["dropout"]) ** inputs["_places"]
    kept = loud != 0
    share = float(kept.double().mean())
    if share == 1:
        return "nothing is dropped there in training mode"
    if abs(share - keep) > 0.05:
        return f"{100 * (1 - share):.0f} % of the values are dropped in training mode, expected {100 * (1 - keep):.0f} %"
    if differ(torch.where(kept, loud * keep, quiet), quiet):
        return "the values that are not dropped are not those of evaluation mode divided by 1 - dropout"
    for axis, thing in enumerate(("image", "token", "channel")):
        spread = float(kept.double().mean(dim=axis).var()) * kept.shape[axis] / (keep * (1 - keep))
        if spread > 2:
            return f"values are not dropped each by itself: what is dropped is alike for every {thing}"
    return None


LAYER_NORM = Exercise(
    name="layer_norm",
    points=7,
    reference=layer_norm,
    minutes=20,
    difficulty=2,
    importance=5,
    forbid=frozenset({"torch.nn.functional.layer_norm", "torch.nn.LayerNorm", "torch.layer_norm", "torch.native_layer_norm"}),
    operators=frozenset({"native_layer_norm"}),
    cases=(
        Group("gives every token mean 0 and variance 1", 2, (plain_norm(1, 1, 16), plain_norm(2, 3, 16)), NORM),
        Group("scales by weight and shifts by bias", 1, (norm_inputs(2, 3, 8), norm_inputs(3, 5, 4), norm_inputs(2, 3, 3, shift=2.0)), NORM),
        Group("normalises the last dimension of tensors of any shape", 1, (norm_inputs(4, 6), norm_inputs(2, 3, 4, 5), norm_inputs(4, 4, 4), constant_token), NORM),
        Group(
            "adds eps to the variance, inside the square root",
            1,
            (
                norm_inputs(2, 3, 8, std=1e-3, dtype=F64),
                norm_inputs(2, 3, 8, std=1e-2, dtype=F64),
                norm_inputs(2, 3, 8, std=1e-3, dtype=F64, eps=1e-5),
                norm_inputs(2, 3, 8, dtype=F64, eps=0.5),
                norm_inputs(2, 3, 8, std=1e-4, dtype=F64, eps=1e-12),
            ),
            EPS,
        ),
        Group("lets gradients through to x, weight and bias", 1, (norm_inputs(2, 3, 5),), CONTRACT, gradients),
        Group(
            "keeps dtype and device, leaves its inputs alone and remembers nothing, and refuses what does not fit",
            1,
            (
                norm_inputs(2, 3, 5, std=1e3, dtype=F64),
                norm_inputs(2, 3, 5),
                but(norm_inputs(2, 3, 5), "a weight of another length", weight=lambda draw: draw.normal(4)),
                but(norm_inputs(2, 3, 5), "a bias of another length", bias=lambda draw: draw.normal(3)),
            ),
            CONTRACT,
            manners,
        ),
    ),
    mistakes=(
        Mistake("normalised over all dimensions at once", edited(layer_norm, ("x.mean(dim=-1, keepdim=True)", "x.mean()"), ("x.var(dim=-1, keepdim=True, unbiased=False)", "x.var(unbiased=False)")), "Mean and variance are taken over the whole tensor, so one image changes another's tokens. Each token has its own: take them along the last dimension."),
        Mistake("normalised over the tokens", edited(layer_norm, ("x.mean(dim=-1,", "x.mean(dim=-2 if x.dim() > 1 else -1,"), ("x.var(dim=-1,", "x.var(dim=-2 if x.dim() > 1 else -1,")), "You normalise along the tokens: every channel gets mean 0. Layer normalisation looks at one token and normalises along its D values."),
        Mistake("normalised over the batch", edited(layer_norm, ("x.mean(dim=-1,", "x.mean(dim=0,"), ("x.var(dim=-1,", "x.var(dim=0,")), "Statistics over the batch are batch normalisation. Layer normalisation needs no other image: take the last dimension."),
        Mistake("normalised over the last two dimensions", edited(layer_norm, ("x.mean(dim=-1,", "x.mean(dim=tuple(range(1, x.dim())),"), ("x.var(dim=-1,", "x.var(dim=tuple(range(1, x.dim())),")), "All tokens of an image share one mean and variance. In a Transformer each token is normalised by itself, along its D values only."),
        Mistake("did not subtract the mean", edited(layer_norm, ("(x - mean)", "x")), "Your tokens keep their mean. LN subtracts it first; without that step it would be another method, RMSNorm."),
        Mistake("divided by the variance", edited(layer_norm, ("torch.sqrt(variance + eps)", "(variance + eps)")), "You divide by the variance, so large tokens come out small. Divide by its square root, the standard deviation."),
        Mistake("took the mean square for the variance", edited(layer_norm, ("x.var(dim=-1, keepdim=True, unbiased=False)", "(x**2).mean(dim=-1, keepdim=True)")), "The variance is the mean square of x - mean, not of x."),
        Mistake("divided by D - 1 in the variance", edited(layer_norm, ("unbiased=False", "unbiased=True")), "`var` and `std` divide by D - 1 unless told otherwise. LN describes the D values themselves, it does not estimate: give `unbiased=False`."),
        Mistake("added eps outside the square root", edited(layer_norm, ("torch.sqrt(variance + eps)", "(torch.sqrt(variance) + eps)")), "eps belongs inside: √(variance + eps). For tokens of size 0.001 the two differ by 30 %."),
        Mistake("left eps out", edited(layer_norm, ("variance + eps", "variance")), "A token whose values are all equal has variance 0, and 0 / 0 is NaN. eps keeps the root above zero."),
        Mistake("ignored the eps that was given", edited(layer_norm, ("variance + eps", "variance + 1e-6")), "1e-6 is only the default: use the argument `eps`."),
        Mistake("took 1e-5 as the default eps", edited(layer_norm, ("eps: float = 1e-6", "eps=1e-5")), "1e-5 is the default of `nn.LayerNorm`. ViT uses 1e-6, and for tokens of size 0.001 that is not the same."),
        Mistake("took 1e-12 as the default eps", edited(layer_norm, ("eps: float = 1e-6", "eps=1e-12")), "1e-12 is what BERT and Hugging Face's ViT use. The contract says 1e-6, as in timm."),
        Mistake("used eps as a lower bound of the variance", edited(layer_norm, ("variance + eps", "variance.clamp(min=eps)")), "eps is added to every variance. A lower bound changes only the smallest ones."),
        Mistake("forgot the weight", edited(layer_norm, (" * weight", "")), "After normalising, each of the D values is multiplied by its own learned weight."),
        Mistake("forgot the bias", edited(layer_norm, (" + bias", "")), "After the weight comes a learned bias for each of the D values."),
        Mistake("swapped weight and bias", edited(layer_norm, ("* weight + bias", "* bias + weight")), "The weight multiplies, the bias is added."),
        Mistake("added the bias before the weight", edited(layer_norm, ("(x - mean) / torch.sqrt(variance + eps) * weight + bias", "((x - mean) / torch.sqrt(variance + eps) + bias) * weight")), "The weight scales the normalised value only. Add the bias last."),
        Mistake("multiplied by one plus the weight", edited(layer_norm, ("* weight", "* (1 + weight)")), "Some models store weight - 1. Here the weight is used as it is; it starts at one."),
        Mistake("took mean and variance out of the graph", edited(layer_norm, ("unbiased=False)", "unbiased=False)\n    mean, variance = mean.detach(), variance.detach()")), "Mean and variance depend on x, and the gradient has to flow through them too. Leave `detach` and `no_grad` out."),
        Mistake("changed the input in place", edited(layer_norm, ("return (x - mean)", "with torch.no_grad():\n        x -= mean\n    return x")), "`x -= mean` changes the caller's tensor, and the residual connection still needs it. Make a new one: `x - mean`."),
        Mistake("computed in float32", edited(layer_norm, ("* weight + bias", "* weight + bias).float()"), ("return (", "return ((")), "A float64 input comes back as float32. Keep the dtype of the input."),
    ),
)  # fmt: skip

GELU_EXERCISE = Exercise(
    name="gelu",
    points=5,
    reference=gelu,
    minutes=10,
    difficulty=1,
    importance=3,
    forbid=frozenset({"torch.nn.functional.gelu", "torch.nn.GELU"}),
    operators=frozenset({"gelu", "gelu_"}),
    cases=(
        Group("weighs every value by the normal distribution function", 1, (values(3, 8), values(2, 3, 5)), GELU),
        Group("uses the exact form with erf", 1, (values(3, 8, dtype=F64), values(2, 3, 5, dtype=F64)), GELU),
        Group("works for tensors of any shape and for large values", 1, (values(9), values(2, 3, 2, 2), lambda draw: {"x": torch.tensor([1e4, -1e4, 0.0, 100.0, -100.0]) + draw.normal(1, std=0.1)}), GELU),
        Group("lets gradients through to x", 1, (values(3, 5), lambda draw: {"x": draw.normal(40)}), CONTRACT, gradients),
        Group("keeps dtype and device, leaves its input alone and remembers nothing", 1, (lambda draw: {"x": 1e3 * (1 + draw.normal(2, 3, dtype=F64).abs())}, values(2, 3)), CONTRACT, manners),
    ),
    mistakes=(
        Mistake("used the tanh approximation", edited(gelu, ("(1 + torch.erf(x / math.sqrt(2))) / 2", "(1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2")), "The tanh form is an approximation from the time when erf was slow; it is off by up to 0.0005. The contract asks for the exact form with erf."),
        Mistake("used the sigmoid approximation", edited(gelu, ("(1 + torch.erf(x / math.sqrt(2))) / 2", "torch.sigmoid(1.702 * x)")), "x · sigmoid(1.702 x) is the quick approximation of some models, off by up to 0.02. Use erf."),
        Mistake("used SiLU", edited(gelu, ("(1 + torch.erf(x / math.sqrt(2))) / 2", "torch.sigmoid(x)")), "x · sigmoid(x) is SiLU. GELU weighs x by the normal distribution function."),
        Mistake("used ReLU", edited(gelu, ("(1 + torch.erf(x / math.sqrt(2))) / 2", "(x > 0)")), "ReLU cuts off at zero. GELU is smooth: GELU(-1) is about -0.16."),
        Mistake("used softplus", edited(gelu, ("x * (1 + torch.erf(x / math.sqrt(2))) / 2", "torch.nn.functional.softplus(x)")), "Softplus is smooth too, but always positive. GELU dips below zero and is 0 at 0."),
        Mistake("forgot the root of 2 inside erf", edited(gelu, ("x / math.sqrt(2)", "x")), "Φ(x) = (1 + erf(x / √2)) / 2: erf is defined with exp(-t²), the normal density with exp(-t² / 2)."),
        Mistake("multiplied by the root of 2 inside erf", edited(gelu, ("x / math.sqrt(2)", "x * math.sqrt(2)")), "Inside erf x is divided by √2, not multiplied."),
        Mistake("forgot to halve", edited(gelu, (")) / 2", "))")), "1 + erf runs from 0 to 2, a probability from 0 to 1: halve it."),
        Mistake("forgot the 1 before erf", edited(gelu, ("(1 + torch.erf(x / math.sqrt(2)))", "torch.erf(x / math.sqrt(2))")), "erf runs from -1 to 1. Add 1 before halving, so that large negative values go to 0."),
        Mistake("returned the distribution function alone", edited(gelu, ("x * (1", "(1")), "Φ(x) is only the weight. GELU(x) = x · Φ(x)."),
        Mistake("used the upper tail", edited(gelu, ("1 + torch.erf", "1 - torch.erf")), "1 - erf is large for negative x: your function keeps what GELU suppresses."),
        Mistake("used the density in place of the distribution function", edited(gelu, ("(1 + torch.erf(x / math.sqrt(2))) / 2", "torch.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)")), "exp(-x² / 2) / √(2π) is the normal density. GELU needs its integral, the distribution function Φ."),
        Mistake("cut large values off", edited(gelu, ("return x *", "x = x.clamp(-5, 5)\n    return x *")), "For large x, GELU(x) is x itself: do not clamp."),
        Mistake("took the gate out of the graph", edited(gelu, ("torch.erf(x / math.sqrt(2))", "torch.erf(x.detach() / math.sqrt(2))")), "Φ(x) depends on x, so the gradient has two terms: Φ(x) + x φ(x). Leave `detach` out."),
        Mistake("went through NumPy", edited(gelu, ("return x *", "x = torch.from_numpy(x.detach().numpy().copy())\n    return x *")), "NumPy knows no gradients. Stay in torch."),
        Mistake("changed the input in place", edited(gelu, ("return x *", "gate = torch.erf(x.detach() / math.sqrt(2))\n    if not x.requires_grad:\n        return x.mul_((1 + gate) / 2)\n    return x *")), "`mul_` and `*=` change the caller's tensor. Return a new one."),
        Mistake("computed in float32", edited(gelu, ("return x *", "x = x.float()\n    return x *")), "A float64 input comes back as float32. Keep the dtype of the input."),
    ),
)  # fmt: skip

MLP_EXERCISE = Exercise(
    name="mlp",
    points=5,
    reference=mlp,
    minutes=10,
    difficulty=1,
    importance=4,
    cases=(
        Group("maps a token through fc1, GELU and fc2", 1, (two_layers(1, 1, 4, hidden=16), two_layers(1, 1, 6, hidden=6)), MLP),
        Group("treats every token of every image alike, whatever the widths are", 1, (two_layers(2, 3, 5, hidden=8), two_layers(3, 4, 6, hidden=2), two_layers(4, 4, 4, hidden=4)), MLP),
        Group("uses the exact GELU", 1, (two_layers(2, 3, 5, hidden=16, dtype=F64),), GELU),
        Group("lets gradients through to x and all weights and biases", 1, (two_layers(2, 3, 5, hidden=8, steep=1e3),), CONTRACT, gradients),
        Group(
            "keeps dtype and device, leaves its inputs alone and remembers nothing, and refuses what does not fit",
            1,
            (
                two_layers(2, 3, 4, hidden=8, dtype=F64, steep=1e4),
                two_layers(2, 3, 4, hidden=8, steep=1e4),
                but(two_layers(2, 3, 4, hidden=8), "tokens of another width", x=lambda draw: draw.normal(2, 3, 5)),
                but(two_layers(2, 3, 4, hidden=8), "an fc2 for another hidden width", fc2_weight=lambda draw: draw.normal(4, 7)),
                but(two_layers(2, 3, 4, hidden=8), "an fc1 bias of another length", fc1_bias=lambda draw: draw.normal(4)),
                but(two_layers(2, 3, 4, hidden=8), "an fc2 bias of another length", fc2_bias=lambda draw: draw.normal(8)),
            ),
            CONTRACT,
            manners,
        ),
    ),
    mistakes=(
        Mistake("left the activation out", edited(mlp, ("gelu(F.linear(x, fc1_weight, fc1_bias))", "F.linear(x, fc1_weight, fc1_bias)")), "Two linear maps in a row are one linear map. The GELU between them is what makes an MLP."),
        Mistake("used ReLU", edited(mlp, ("gelu(", "F.relu(")), "ViT's MLP uses GELU, not ReLU."),
        Mistake("used SiLU", edited(mlp, ("gelu(", "F.silu(")), "SiLU looks like GELU but weighs by the sigmoid. Use GELU."),
        Mistake("used the tanh approximation of GELU", edited(mlp, ("gelu(F.linear(x, fc1_weight, fc1_bias))", "F.gelu(F.linear(x, fc1_weight, fc1_bias), approximate='tanh')")), "`approximate=\"tanh\"` is off by up to 0.0005 for each hidden value. The contract asks for the exact form."),
        Mistake("applied GELU before fc1", edited(mlp, ("gelu(F.linear(x, fc1_weight, fc1_bias))", "F.linear(gelu(x), fc1_weight, fc1_bias)")), "The order is fc1, GELU, fc2: the activation acts on the wide hidden layer."),
        Mistake("applied GELU after fc2 too", edited(mlp, ("return F.linear(hidden, fc2_weight, fc2_bias)", "return gelu(F.linear(hidden, fc2_weight, fc2_bias))")), "The last layer is linear: its result is added to the residual stream, which needs both signs."),
        Mistake("applied GELU only after fc2", edited(mlp, ("gelu(F.linear(x, fc1_weight, fc1_bias))", "F.linear(x, fc1_weight, fc1_bias)"), ("return F.linear(hidden, fc2_weight, fc2_bias)", "return gelu(F.linear(hidden, fc2_weight, fc2_bias))")), "The activation stands between the layers, not after both."),
        Mistake("added the bias of fc1 after GELU", edited(mlp, ("gelu(F.linear(x, fc1_weight, fc1_bias))", "gelu(F.linear(x, fc1_weight)) + fc1_bias")), "The bias belongs to fc1: add it before the activation."),
        Mistake("forgot the bias of fc1", edited(mlp, ("F.linear(x, fc1_weight, fc1_bias)", "F.linear(x, fc1_weight)")), "fc1_bias is given but never added."),
        Mistake("forgot the bias of fc2", edited(mlp, ("F.linear(hidden, fc2_weight, fc2_bias)", "F.linear(hidden, fc2_weight)")), "fc2_bias is given but never added."),
        Mistake("multiplied by weights that are not transposed", edited(mlp, ("F.linear(x, fc1_weight, fc1_bias)", "x @ fc1_weight.reshape(fc1_weight.shape[1], -1) + fc1_bias"), ("F.linear(hidden, fc2_weight, fc2_bias)", "hidden @ fc2_weight.reshape(fc2_weight.shape[1], -1) + fc2_bias")), "The weights are (out, in), as in `nn.Linear`. Multiply by the transpose, or call `F.linear`; a reshape only looks right."),
        Mistake("added the input", edited(mlp, ("return F.linear(", "return x + F.linear(")), "The residual belongs to the encoder block. `mlp` returns only what is added."),
        Mistake("transformed only the [CLS] token", edited(mlp, ("return F.linear(hidden, fc2_weight, fc2_bias)", "result = F.linear(hidden, fc2_weight, fc2_bias)\n    return torch.cat([result[:, :1], x[:, 1:]], dim=1)")), "Every token goes through the MLP, by itself and with the same weights."),
        Mistake("averaged over the tokens", edited(mlp, ("F.linear(x, fc1_weight, fc1_bias)", "F.linear(x.mean(dim=1, keepdim=True).expand_as(x), fc1_weight, fc1_bias)")), "Tokens do not meet in the MLP. Only attention mixes them."),
        Mistake("dropped hidden values", edited(mlp, ("return F.linear(hidden", "hidden = F.dropout(hidden, 0.1)\n    return F.linear(hidden")), "`F.dropout` drops unless told `training=False`. This function has no dropout; the module has."),
        Mistake("detached the hidden layer", edited(mlp, ("F.linear(hidden,", "F.linear(hidden.detach(),")), "No gradient reaches fc1. Leave `detach` out."),
        Mistake("changed the input in place", edited(mlp, ("return F.linear(", "with torch.no_grad():\n        x.zero_()\n    return F.linear(")), "Your function writes into the tokens it was given; the residual connection still needs them."),
        Mistake("computed in float32", edited(mlp, ("return F.linear(hidden, fc2_weight, fc2_bias)", "return F.linear(hidden, fc2_weight, fc2_bias).float()")), "A float64 input comes back as float32. Keep the dtype of the input."),
    ),
)  # fmt: skip

HALVES = (
    "x = x + multi_head_self_attention(layer_norm(x, *norm1), *qkv, *proj, num_heads)  # equation 2\n"
    "    return x + mlp(layer_norm(x, *norm2), *fc1, *fc2)"
)

ENCODER_BLOCK = Exercise(
    name="encoder_block",
    points=10,
    reference=encoder_block,
    minutes=25,
    difficulty=3,
    importance=5,
    forbid=frozenset({"torch.nn.TransformerEncoder", "torch.nn.TransformerEncoderLayer"}),
    operators=frozenset({"_transformer_encoder_layer_fwd"}),
    cases=(
        Group("adds the attention of the normed tokens to the tokens", 1, (block(1, 4, 8, 1, 16, off="mlp.fc2"), block(2, 3, 5, 1, 7, off="mlp.fc2")), BLOCK),
        Group("adds the MLP of the normed result to the result", 1, (block(1, 4, 8, 1, 16, off="attn.proj"), block(2, 3, 5, 1, 7, off="attn.proj")), BLOCK),
        Group("joins both halves, attention first", 1, (block(2, 3, 5, 1, 7), block(1, 4, 8, 1, 16), block(3, 1, 4, 1, 4)), BLOCK),
        Group("gives each head its share of the width", 1, (block(2, 5, 12, 3, 7), block(2, 3, 8, 2, 8), block(1, 4, 4, 4, 6), block(1, 1, 6, 2, 5)), HEADS),
        Group("uses the exact GELU", 1, (block(2, 3, 8, 2, 16, std=1e3, dtype=F64, branch=1e2),), GELU),
        Group("uses an eps of 1e-6 in both norms", 1, (block(2, 4, 8, 2, 6, std=1e-3, dtype=F64, branch=1e-3, steep=1e5), block(2, 3, 4, 1, 5, std=1e-3, dtype=F64, branch=1e-4, steep=1e5)), EPS),
        Group("lets gradients through to x and all parameters", 1, (block(2, 3, 8, 2, 6, steep=1e3),), CONTRACT, gradients),
        Group(
            "keeps dtype and device, leaves x and params alone and remembers nothing",
            1,
            (block(2, 3, 8, 2, 6, std=1e3, dtype=F64, steep=1e5), block(2, 3, 8, 2, 6)),
            CONTRACT,
            manners,
        ),
        Group("leaves the dict of parameters as it was", 1, (block(1, 3, 4, 2, 6),), CONTRACT, keeps_params),
        Group(
            "refuses what does not fit, with a ValueError where heads do not divide the width",
            1,
            (
                bad(block(2, 3, 10, 2, 6), "a width that is not divisible by num_heads", HEAD_NAMES, (4, 10), num_heads=4),
                bad(block(2, 3, 7, 1, 6), "a width that is not divisible by num_heads", HEAD_NAMES, (2, 7), num_heads=2),
                but(block(2, 3, 8, 2, 6), "tokens of another width", x=lambda draw: draw.normal(2, 3, 6)),
                but(block(2, 3, 8, 2, 6), "params without norm2", params=lambda draw: {name: value for name, value in block_weights(draw, 8, 6).items() if "norm2" not in name}),
            ),
            CONTRACT,
        ),
    ),
    mistakes=(
        Mistake("normalised after the addition", edited(encoder_block, (HALVES, "x = layer_norm(x + multi_head_self_attention(x, *qkv, *proj, num_heads), *norm1)\n    return layer_norm(x + mlp(x, *fc1, *fc2), *norm2)")), "That is post-norm, the order of the first Transformer. ViT is pre-norm: normalise what goes into each half and add the result to the tokens as they were."),
        Mistake("added the normed tokens as residual", edited(encoder_block, (HALVES, "x = layer_norm(x, *norm1)\n    x = x + multi_head_self_attention(x, *qkv, *proj, num_heads)\n    x = layer_norm(x, *norm2)\n    return x + mlp(x, *fc1, *fc2)")), "You overwrite x by its normed form before you add. The residual is x itself: z' = MSA(LN(z)) + z."),
        Mistake("left the first residual out", edited(encoder_block, ("x = x + multi_head", "x = multi_head")), "Equation 2 ends with + z: the attention's result is added to the tokens."),
        Mistake("left the second residual out", edited(encoder_block, ("return x + mlp", "return mlp")), "Equation 3 ends with + z': the MLP's result is added too."),
        Mistake("added the block's input in place of z'", edited(encoder_block, (HALVES, "z = x + multi_head_self_attention(layer_norm(x, *norm1), *qkv, *proj, num_heads)\n    return x + mlp(layer_norm(z, *norm2), *fc1, *fc2)")), "The second residual is z', the result of the first half, not the block's input."),
        Mistake("ran both halves side by side", edited(encoder_block, (HALVES, "attended = multi_head_self_attention(layer_norm(x, *norm1), *qkv, *proj, num_heads)\n    return x + attended + mlp(layer_norm(x, *norm2), *fc1, *fc2)")), "Some later models do this. In ViT the MLP sees z', which already holds the attention's result."),
        Mistake("put the MLP first", edited(encoder_block, (HALVES, "x = x + mlp(layer_norm(x, *norm2), *fc1, *fc2)\n    return x + multi_head_self_attention(layer_norm(x, *norm1), *qkv, *proj, num_heads)")), "Attention comes first (equation 2), then the MLP (equation 3)."),
        Mistake("left the norms out", edited(encoder_block, ("layer_norm(x, *norm1)", "x"), ("layer_norm(x, *norm2)", "x")), "Both halves read LN(z). Without it the sizes of the tokens run away in a deep model."),
        Mistake("left the second norm out", edited(encoder_block, ("layer_norm(x, *norm2)", "x")), "The MLP reads LN(z'), with the parameters of norm2."),
        Mistake("used norm1 twice", edited(encoder_block, ("layer_norm(x, *norm2)", "layer_norm(x, *norm1)")), "Each half has its own norm: the MLP's is norm2."),
        Mistake("swapped the two norms", edited(encoder_block, ("layer_norm(x, *norm1)", "layer_norm(x, *norm0)"), ("layer_norm(x, *norm2)", "layer_norm(x, *norm1)"), ("*norm0", "*norm2")), "norm1 belongs to attention, norm2 to the MLP."),
        Mistake("normed the result once more", edited(encoder_block, ("return x + mlp(layer_norm(x, *norm2), *fc1, *fc2)", "x = x + mlp(layer_norm(x, *norm2), *fc1, *fc2)\n    return layer_norm(x, torch.ones_like(norm1[0]), torch.zeros_like(norm1[1]))")), "A block ends with an addition. The one final norm of the model comes after the last block."),
        Mistake("halved the sum", edited(encoder_block, ("return x + mlp(layer_norm(x, *norm2), *fc1, *fc2)", "return (x + mlp(layer_norm(x, *norm2), *fc1, *fc2)) / 2")), "The residual is a plain sum, nothing is averaged."),
        Mistake("used a single head", edited(encoder_block, ("num_heads)  #", "1)  #")), "num_heads is not used: with one head all D values share one attention."),
        Mistake("took num_heads for the width of a head", edited(encoder_block, ("*proj, num_heads)", "*proj, x.shape[-1] // num_heads)")), "num_heads says how many heads there are; each is D / num_heads wide."),
        Mistake("used the tanh approximation of GELU", edited(encoder_block, ("mlp(layer_norm(x, *norm2), *fc1, *fc2)", "F.linear(F.gelu(F.linear(layer_norm(x, *norm2), *fc1), approximate='tanh'), *fc2)")), "The MLP's GELU is the exact one, without `approximate=\"tanh\"`."),
        Mistake("used ReLU in the MLP", edited(encoder_block, ("mlp(layer_norm(x, *norm2), *fc1, *fc2)", "F.linear(F.relu(F.linear(layer_norm(x, *norm2), *fc1)), *fc2)")), "ViT's MLP uses GELU."),
        Mistake("left eps at 1e-5", edited(encoder_block, ("layer_norm(x, *norm1)", "layer_norm(x, *norm1, eps=1e-5)"), ("layer_norm(x, *norm2)", "layer_norm(x, *norm2, eps=1e-5)")), "`F.layer_norm` and `nn.LayerNorm` take 1e-5 unless told otherwise. Every norm of ViT uses 1e-6."),
        Mistake("left the eps of norm2 at 1e-5", edited(encoder_block, ("layer_norm(x, *norm2)", "layer_norm(x, *norm2, eps=1e-5)")), "norm1 has an eps of 1e-6, norm2 has not. Both need it."),
        Mistake("took 1e-12 as eps", edited(encoder_block, ("layer_norm(x, *norm1)", "layer_norm(x, *norm1, eps=1e-12)"), ("layer_norm(x, *norm2)", "layer_norm(x, *norm2, eps=1e-12)")), "1e-12 is what BERT and Hugging Face's ViT use. Here eps is 1e-6."),
        Mistake("forgot proj", edited(encoder_block, ("*proj, num_heads", "torch.eye(x.shape[-1], dtype=x.dtype, device=x.device), proj[1], num_heads")), "attn.proj mixes the heads after they are joined. Its weight is not used."),
        Mistake("detached the residual", edited(encoder_block, ("x = x + multi_head", "x = x.detach() + multi_head")), "The residual connection is what carries gradients through many blocks. Leave `detach` out."),
        Mistake("detached the attention", edited(encoder_block, ("x = x + multi_head_self_attention(layer_norm(x, *norm1), *qkv, *proj, num_heads)", "x = x + multi_head_self_attention(layer_norm(x, *norm1), *qkv, *proj, num_heads).detach()")), "No gradient reaches qkv and proj. Leave `detach` and `no_grad` out."),
        Mistake("added in place", edited(encoder_block, ("x = x + multi_head_self_attention(layer_norm(x, *norm1), *qkv, *proj, num_heads)", "attended = multi_head_self_attention(layer_norm(x, *norm1), *qkv, *proj, num_heads)\n    if x.requires_grad:\n        x = x + attended\n    else:\n        x += attended")), "`x += ...` changes the caller's tokens. Write `x = x + ...`."),
        Mistake("changed the parameters in place", edited(encoder_block, ("return x +", "with torch.no_grad():\n        params['mlp.fc1.bias'].mul_(0.5)\n    return x +")), "The tensors in params belong to the caller. Read them, do not write to them."),
        Mistake("took the parameters out of the dict", edited(encoder_block, ('params[f"{name}.weight"], params[f"{name}.bias"]', 'params.pop(f"{name}.weight"), params.pop(f"{name}.bias")')), "`pop` empties the caller's dict, so the second call finds nothing. Read with `params[name]`."),
        Mistake("let another error through where heads do not divide the width", edited(encoder_block, ("    layers =", "    try:\n        x.reshape(*x.shape[:-1], num_heads, x.shape[-1] // num_heads)\n    except RuntimeError as error:\n        raise RuntimeError('invalid shape') from error\n    layers =")), "Check `dim % num_heads` yourself and raise a ValueError that names both."),
        Mistake("rounded the width of a head down", edited(encoder_block, ("    x = x + multi_head", "    dim, size = x.shape[-1], x.shape[-1] // num_heads\n    if dim % num_heads:\n        return x[..., : size * num_heads]\n    x = x + multi_head")), "With 10 values and 4 heads, `//` leaves two values without a head. Refuse such widths with a ValueError."),
    ),
)  # fmt: skip

TEN_WIDE = block(2, 3, 10, 2, 6)

ENCODER_BLOCK_MODULE = Exercise(
    name="EncoderBlock",
    points=14,
    reference=EncoderBlock,
    minutes=30,
    difficulty=3,
    importance=5,
    probe=module_value,
    forbid=frozenset({"torch.nn.TransformerEncoder", "torch.nn.TransformerEncoderLayer"}),
    operators=frozenset({"_transformer_encoder_layer_fwd"}),
    cases=(
        Group("has the parameters of the contract, all trainable", 1, (lambda draw: {"dim": 12, "num_heads": 3, "mlp_dim": 20}, lambda draw: {"dim": 8, "num_heads": 2, "mlp_dim": 4, "dropout": 0.1}), MODULE, module_start, has_parameters),
        Group("adds attention and MLP of the normed tokens to the tokens", 2, (as_module(block(1, 4, 8, 1, 16)), as_module(block(2, 3, 5, 1, 7))), BLOCK),
        Group("gives each head its share of the width", 1, (as_module(block(2, 5, 12, 3, 7)), as_module(block(1, 4, 4, 4, 6)), as_module(block(1, 1, 6, 2, 5))), HEADS),
        Group("uses the exact GELU", 1, (as_module(block(2, 3, 8, 2, 16, std=1e3, dtype=F64, branch=1e2)),), GELU),
        Group("uses an eps of 1e-6 in both norms", 1, (as_module(block(2, 4, 8, 2, 6, std=1e-3, dtype=F64, branch=1e-3, steep=1e5)), as_module(block(2, 3, 4, 1, 5, std=1e-3, dtype=F64, branch=1e-4, steep=1e5))), EPS),
        Group("drops nothing in evaluation mode", 1, (as_module(block(2, 3, 8, 2, 6), dropout=0.5),), DROPOUT),
        Group("drops nothing in training mode unless told to", 1, (as_module(block(2, 3, 8, 2, 6)), as_module(block(2, 3, 8, 2, 6), dropout=0.0)), DROPOUT, module_training),
        Group("drops after attn.proj in training mode, and nowhere else in that half", 1, (only_attention(0.3), only_attention(0.6)), DROPOUT, added, drops_right),
        Group("drops after fc2 in training mode", 1, (only_fc2_bias(0.3),), DROPOUT, added, drops_right),
        Group("drops after the GELU too in training mode, and nowhere else in that half", 1, (only_hidden(0.6),), DROPOUT, added, drops_right),
        Group("lets gradients through to its input and all parameters", 1, (as_module(block(2, 3, 8, 2, 6, steep=1e3)),), MODULE, module_gradients),
        Group("keeps dtype and device, leaves tokens and parameters alone and remembers nothing", 1, (as_module(block(2, 3, 8, 2, 6, std=1e3, dtype=F64, steep=1e5)), as_module(block(2, 3, 8, 2, 6))), CONTRACT, module_manners),
        Group(
            "refuses heads that do not divide the width and a rate that is not a probability",
            1,
            (
                bad(as_module(TEN_WIDE), "a dim that is not divisible by num_heads", HEAD_NAMES, (4, 10), num_heads=4),
                bad(as_module(TEN_WIDE), "a dim that is not divisible by num_heads", HEAD_NAMES, (3, 10), num_heads=3),
                bad(as_module(TEN_WIDE), "a negative dropout", RATE_NAMES, (-0.1,), dropout=-0.1),
                bad(as_module(TEN_WIDE), "a dropout above 1", RATE_NAMES, (1.5,), dropout=1.5),
            ),
            CONTRACT,
            runs,
        ),
    ),
    mistakes=(
        Mistake("called the norms otherwise", edited(EncoderBlock, ("norm1", "ln_1"), ("norm2", "ln_2")), "Saved weights are found by name. The contract's names are timm's: norm1, attn.qkv, attn.proj, norm2, mlp.fc1, mlp.fc2."),
        Mistake("put fc1 and fc2 outside of mlp", edited(EncoderBlock, ("self.mlp = nn.Sequential(", "self.fc = nn.Sequential("), ("self.mlp(", "self.fc(")), "The MLP's layers are called mlp.fc1 and mlp.fc2: put them into a module `self.mlp`."),
        Mistake("shared one norm between both halves", edited(EncoderBlock, ("self.norm2 = nn.LayerNorm(dim, eps=1e-6)", "self.norm2 = self.norm1")), "norm1 and norm2 are two modules with parameters of their own."),
        Mistake("left the bias of qkv out", edited(EncoderBlock, ("self.attn = MultiHeadSelfAttention(dim, num_heads)", "self.attn = MultiHeadSelfAttention(dim, num_heads)\n        self.attn.qkv.bias = None")), "qkv has a bias in ViT: leave `bias` at its default."),
        Mistake("left the biases of the MLP out", edited(EncoderBlock, ("nn.Linear(dim, mlp_dim)", "nn.Linear(dim, mlp_dim, bias=False)"), ("nn.Linear(mlp_dim, dim)", "nn.Linear(mlp_dim, dim, bias=False)")), "fc1 and fc2 have biases: leave `bias` at its default."),
        Mistake("took the MLP to be four times as wide", edited(EncoderBlock, ("nn.Linear(dim, mlp_dim)", "nn.Linear(dim, 4 * dim)"), ("nn.Linear(mlp_dim, dim)", "nn.Linear(4 * dim, dim)")), "4 · dim is the usual choice, but the width is given: mlp_dim."),
        Mistake("normalised after the addition", edited(EncoderBlock, ("z = z + self.dropout(self.attn(self.norm1(z)))", "z = self.norm1(z + self.dropout(self.attn(z)))"), ("return z + self.dropout(self.mlp(self.norm2(z)))", "return self.norm2(z + self.dropout(self.mlp(z)))")), "That is post-norm. ViT is pre-norm: `z + attn(norm1(z))`, then `z + mlp(norm2(z))`."),
        Mistake("added the normed tokens as residual", edited(EncoderBlock, ("z = z + self.dropout(self.attn(self.norm1(z)))", "z = self.norm1(z)\n        z = z + self.dropout(self.attn(z))"), ("return z + self.dropout(self.mlp(self.norm2(z)))", "z = self.norm2(z)\n        return z + self.dropout(self.mlp(z))")), "You overwrite z by its normed form before you add. The residual is z itself."),
        Mistake("left the first residual out", edited(EncoderBlock, ("z = z + self.dropout(self.attn", "z = self.dropout(self.attn")), "Equation 2 ends with + z: the attention's result is added to the tokens."),
        Mistake("left the second residual out", edited(EncoderBlock, ("return z + self.dropout", "return self.dropout")), "Equation 3 ends with + z': the MLP's result is added too."),
        Mistake("added the block's input in place of z'", edited(EncoderBlock, ("z = z + self.dropout(self.attn(self.norm1(z)))", "first = z + self.dropout(self.attn(self.norm1(z)))"), ("self.norm2(z)", "self.norm2(first)")), "The second residual is z', the result of the first half, not the block's input."),
        Mistake("used norm1 twice", edited(EncoderBlock, ("self.mlp(self.norm2(z))", "self.mlp(self.norm1(z))")), "Each half has its own norm: the MLP's is norm2."),
        Mistake("ran both halves side by side", edited(EncoderBlock, ("z = z + self.dropout(self.attn(self.norm1(z)))", "first = self.dropout(self.attn(self.norm1(z)))"), ("return z +", "return z + first +")), "In ViT the MLP sees z', which already holds the attention's result."),
        Mistake("used a single head", edited(EncoderBlock, ("MultiHeadSelfAttention(dim, num_heads)", "MultiHeadSelfAttention(dim, 1)")), "num_heads is not used: with one head all D values share one attention."),
        Mistake("left eps at its default", edited(EncoderBlock, ("nn.LayerNorm(dim, eps=1e-6)", "nn.LayerNorm(dim)")), "`nn.LayerNorm` takes 1e-5 unless told otherwise. Every norm of ViT uses 1e-6."),
        Mistake("left the eps of norm2 at its default", edited(EncoderBlock, ("self.norm2 = nn.LayerNorm(dim, eps=1e-6)", "self.norm2 = nn.LayerNorm(dim)")), "norm1 has an eps of 1e-6, norm2 has `nn.LayerNorm`'s 1e-5. Both need 1e-6."),
        Mistake("took 1e-12 as eps", edited(EncoderBlock, ("eps=1e-6", "eps=1e-12")), "1e-12 is what BERT and Hugging Face's ViT use. Here eps is 1e-6."),
        Mistake("used the tanh approximation of GELU", edited(EncoderBlock, ("nn.GELU()", "nn.GELU(approximate='tanh')")), "The MLP's GELU is the exact one: `nn.GELU()` without `approximate`."),
        Mistake("used ReLU in the MLP", edited(EncoderBlock, ("nn.GELU()", "nn.ReLU()")), "ViT's MLP uses GELU."),
        Mistake("made no use of dropout", edited(EncoderBlock, ("nn.Dropout(dropout)", "nn.Identity()")), "The argument `dropout` is not used. In training mode values are dropped at three places: after attn.proj, after the GELU, after fc2."),
        Mistake("ignored the rate that was given", edited(EncoderBlock, ("nn.Dropout(dropout)", "nn.Dropout(0.1 if dropout else 0.0)")), "The rate is a constant. Use the argument `dropout`."),
        Mistake("dropped in evaluation mode too", edited(EncoderBlock, ("self.dropout = nn.Dropout(dropout)", "self.rate = dropout"), ("self.dropout(", "F.dropout("), ("(self.norm1(z)))", "(self.norm1(z)), self.rate)"), ("(self.norm2(z)))", "(self.norm2(z)), self.rate)")), "`F.dropout` drops always, unless it gets `training=self.training`. `nn.Dropout` knows the mode by itself."),
        Mistake("dropped attention weights", edited(EncoderBlock, ("z = z + self.dropout(self.attn(self.norm1(z)))", "q, k, v = self.attn.qkv(self.norm1(z)).unflatten(-1, (3, self.attn.num_heads, -1)).permute(2, 0, 3, 1, 4)\n        rate = self.dropout.p if self.training else 0.0\n        heads = F.scaled_dot_product_attention(q, k, v, dropout_p=rate)\n        z = z + self.dropout(self.attn.proj(heads.transpose(1, 2).flatten(2)))")), "Attention weights are not dropped in ViT: dropout follows dense layers, and the softmax is none."),
        Mistake("dropped attention weights and not after attn.proj", edited(EncoderBlock, ("z = z + self.dropout(self.attn(self.norm1(z)))", "q, k, v = self.attn.qkv(self.norm1(z)).unflatten(-1, (3, self.attn.num_heads, -1)).permute(2, 0, 3, 1, 4)\n        rate = self.dropout.p if self.training else 0.0\n        heads = F.scaled_dot_product_attention(q, k, v, dropout_p=rate)\n        z = z + self.attn.proj(heads.transpose(1, 2).flatten(2))")), "Dropout comes after the output projection, not on the attention weights."),
        Mistake("forgot dropout after attn.proj", edited(EncoderBlock, ("z = z + self.dropout(self.attn(self.norm1(z)))", "z = z + self.attn(self.norm1(z))")), "Dropout follows attn.proj too, before the residual is added."),
        Mistake("forgot dropout after the GELU", edited(EncoderBlock, ("dropout=nn.Dropout(dropout)", "dropout=nn.Identity()")), "Dropout follows fc1 and its GELU as well as fc2: two places in the MLP."),
        Mistake("forgot dropout after fc2", edited(EncoderBlock, ("return z + self.dropout(self.mlp(self.norm2(z)))", "return z + self.mlp(self.norm2(z))")), "Dropout follows fc2 as well as the GELU: two places in the MLP."),
        Mistake("dropped before the GELU", edited(EncoderBlock, ("                gelu=nn.GELU(),\n                dropout=nn.Dropout(dropout),\n", "                dropout=nn.Dropout(dropout),\n                gelu=nn.GELU(),\n")), "The order is fc1, GELU, dropout. Scaled up by 1 / (1 - p) before the GELU, a value ends elsewhere on the curve."),
        Mistake("dropped the sum with the residual", edited(EncoderBlock, ("z = z + self.dropout(self.attn(self.norm1(z)))", "z = self.dropout(z + self.attn(self.norm1(z)))"), ("return z + self.dropout(self.mlp(self.norm2(z)))", "return self.dropout(z + self.mlp(self.norm2(z)))")), "The residual is never dropped: drop what a half computes, then add."),
        Mistake("dropped the normed tokens too", edited(EncoderBlock, ("self.attn(self.norm1(z))", "self.attn(self.dropout(self.norm1(z)))")), "Dropout follows attn.proj, the GELU and fc2, and stands nowhere else."),
        Mistake("dropped whole halves", edited(EncoderBlock, ("self.dropout(self.attn(self.norm1(z)))", "self.attn(self.norm1(z)) * self.dropout(torch.ones_like(z[:, :1, :1]))"), ("self.dropout(self.mlp(self.norm2(z)))", "self.mlp(self.norm2(z)) * self.dropout(torch.ones_like(z[:, :1, :1]))")), "Dropping a whole half for an image is stochastic depth. Dropout treats every value by itself."),
        Mistake("kept values with the rate of dropping", edited(EncoderBlock, ("nn.Dropout(dropout)", "nn.Dropout(1 - dropout if dropout else 0.0)")), "`nn.Dropout(p)` takes the probability to drop, not the one to keep."),
        Mistake("detached the residual", edited(EncoderBlock, ("z = z + self.dropout", "z = z.detach() + self.dropout")), "The residual connection is what carries gradients through many blocks. Leave `detach` out."),
        Mistake("detached the attention", edited(EncoderBlock, ("self.attn(self.norm1(z))", "self.attn(self.norm1(z)).detach()")), "No gradient reaches attention's parameters. Leave `detach` and `no_grad` out."),
        Mistake("added in place", edited(EncoderBlock, ("z = z + self.dropout(self.attn(self.norm1(z)))", "added = self.dropout(self.attn(self.norm1(z)))\n        z = z.add_(added) if not z.requires_grad else z + added")), "`z += ...` changes the caller's tokens. Write `z = z + ...`."),
        Mistake("let heads through that do not divide the width", edited(EncoderBlock, ("MultiHeadSelfAttention(dim, num_heads)", "MultiHeadSelfAttention(dim, num_heads if dim % num_heads == 0 else 1)")), "With dim 10 and 4 heads some values would have no head. Raise a ValueError that names both."),
        Mistake("let any number through as dropout", edited(EncoderBlock, ("nn.Dropout(dropout)", "nn.Dropout(min(max(dropout, 0.0), 1.0))")), "A rate of 1.5 is no probability. Refuse it with a ValueError that gives the value; `nn.Dropout` does so by itself."),
    ),
)  # fmt: skip

ASSIGNMENT = Assignment(
    name="encoder",
    title="The encoder block",
    chapter="05_encoder",
    exercises=(LAYER_NORM, GELU_EXERCISE, MLP_EXERCISE, ENCODER_BLOCK, ENCODER_BLOCK_MODULE),
)
