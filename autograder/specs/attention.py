"""Chapter 4: softmax, scaled dot-product attention, heads, and multi-head self-attention."""

from collections.abc import Callable
from typing import Any

import torch

from autograder.judge import same
from autograder.probes import (
    Inputs,
    Outputs,
    built,
    gradients,
    manners,
    mapped,
    module_gradients,
    module_manners,
    module_start,
    module_value,
    observe,
)
from autograder.reference.attention import (
    MultiHeadSelfAttention,
    merge_heads,
    multi_head_self_attention,
    scaled_dot_product_attention,
    split_heads,
    stable_softmax,
)
from autograder.spec import Assignment, Draw, Exercise, Group, Mistake, edited
from autograder.specs.patch_embedding import has_parameters

SOFTMAX, QKV, HEADS, MSA = (
    "A softmax that does not overflow",
    "Queries, keys and values",
    "Several heads",
    "Multi-head self-attention, whole",
)
CONTRACT = "What every answer owes its caller"
Make = Callable[[Draw], Inputs]

NO_SOFTMAX = frozenset(
    f"torch.{name}"
    for name in (
        "softmax", "log_softmax", "logsumexp", "_softmax", "_log_softmax", "_safe_softmax", "_masked_softmax",
        "logcumsumexp", "_logcumsumexp", "special.softmax", "special.log_softmax", "special.logsumexp",
        "sparse.softmax", "sparse.log_softmax", "masked.softmax", "masked.log_softmax", "masked.softmin",
        "masked.logsumexp", "nn.functional.softmax", "nn.functional.log_softmax", "nn.functional.softmin",
        "nn.functional.gumbel_softmax", "nn.functional.cross_entropy", "nn.functional.scaled_dot_product_attention",
        "nn.functional.multi_head_attention_forward", "nn.Softmax", "nn.Softmax2d", "nn.LogSoftmax", "nn.Softmin",
        "nn.AdaptiveLogSoftmaxWithLoss", "nn.CrossEntropyLoss", "nn.MultiheadAttention", "Tensor.softmax",
        "Tensor.log_softmax", "Tensor.logsumexp", "Tensor.logcumsumexp",
    )
)  # fmt: skip
SOFTMAX_OPERATORS = frozenset({
    "_softmax", "_log_softmax", "_safe_softmax", "_masked_softmax", "_sparse_softmax", "_sparse_log_softmax", "softmax",
    "log_softmax", "special_softmax", "special_log_softmax", "logsumexp", "special_logsumexp", "logcumsumexp",
    "_logcumsumexp",
})  # fmt: skip
NO_ATTENTION = frozenset(
    f"torch.{name}"
    for name in (
        "nn.functional.scaled_dot_product_attention", "nn.functional.multi_head_attention_forward",
        "nn.MultiheadAttention", "nn.quantizable.MultiheadAttention", "nn.TransformerEncoderLayer",
        "nn.TransformerEncoder", "nn.TransformerDecoderLayer", "nn.TransformerDecoder", "nn.Transformer",
        "nn.attention.flex_attention.flex_attention", "nn.attention.varlen.varlen_attn", "_native_multi_head_attention",
        "_transformer_encoder_layer_fwd", "_scaled_dot_product_attention_math",
        "_scaled_dot_product_flash_attention", "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_efficient_attention", "_scaled_dot_product_cudnn_attention",
        "_triton_multi_head_attention", "_triton_scaled_dot_attention",
    )
)  # fmt: skip
ATTENTION_OPERATORS = frozenset({
    "scaled_dot_product_attention", "multi_head_attention_forward", "flex_attention", "_native_multi_head_attention",
    "_transformer_encoder_layer_fwd", "_scaled_dot_product_attention_math", "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention", "_scaled_dot_product_fused_attention_overrideable",
    "_flash_attention_forward", "_efficient_attention_forward", "_triton_multi_head_attention",
    "_triton_scaled_dot_attention",
})  # fmt: skip


def scores(sizes: tuple[int, ...], dim: int, std: float = 1.0, dtype: torch.dtype = torch.float32) -> Make:
    """Draw scores and the dimension along which they become weights."""
    return lambda draw: {"scores": draw.normal(*sizes, std=std, dtype=dtype), "dim": dim}


def around(levels: list[list[float]], dim: int) -> Make:
    """Draw float64 scores around the given levels."""
    middle = torch.tensor(levels, dtype=torch.float64)
    return lambda draw: {"scores": middle + draw.normal(*middle.shape, dtype=torch.float64), "dim": dim}


def tokens(*sizes: int, std: float = 1.0, dtype: torch.dtype = torch.float32) -> Make:
    """Draw query, key and value of shape (..., N, d)."""
    return lambda draw: {
        name: draw.normal(*sizes, std=std, dtype=dtype) for name in ("query", "key", "value")
    }


def same_query(*sizes: int) -> Make:
    """Draw key and value, and a query of zeros."""
    return lambda draw: {**tokens(*sizes)(draw), "query": torch.zeros(sizes)}


def widths(batch: int, count: int, dim: int, num_heads: int, dtype: torch.dtype = torch.float32) -> Make:
    """Draw tokens of width D for num_heads."""
    return lambda draw: {"x": draw.normal(batch, count, dim, dtype=dtype), "num_heads": num_heads}


def heads(batch: int, num_heads: int, count: int, head_dim: int, dtype: torch.dtype = torch.float32) -> Make:
    """Draw what several heads returned."""
    return lambda draw: {"x": draw.normal(batch, num_heads, count, head_dim, dtype=dtype)}


def layer(draw: Draw, dim: int, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Draw the parameters of MSA, large enough that tokens attend to each other unevenly."""
    std = 1.5 / dim**0.5
    return {
        "qkv.weight": draw.normal(3 * dim, dim, std=std, dtype=dtype),
        "qkv.bias": draw.normal(3 * dim, dtype=dtype),
        "proj.weight": draw.normal(dim, dim, std=std, dtype=dtype),
        "proj.bias": draw.normal(dim, dtype=dtype),
    }


def self_attention(
    batch: int, count: int, dim: int, num_heads: int, dtype: torch.dtype = torch.float32
) -> Make:
    """Draw tokens and the parameters of MSA."""

    def draw_self_attention(draw: Draw) -> Inputs:
        parameters = {name.replace(".", "_"): tensor for name, tensor in layer(draw, dim, dtype).items()}
        return {"x": draw.normal(batch, count, dim, dtype=dtype), **parameters, "num_heads": num_heads}

    return draw_self_attention


def module(batch: int, count: int, dim: int, num_heads: int, dtype: torch.dtype = torch.float32) -> Make:
    """Draw a MultiHeadSelfAttention with given parameters, and tokens for it."""
    return lambda draw: {
        "dim": dim,
        "num_heads": num_heads,
        "_state": layer(draw, dim, dtype),
        "_forward": {"x": draw.normal(batch, count, dim, dtype=dtype)},
    }


def but(
    make: Make, because: str, names: tuple[str, ...] = (), values: tuple[Any, ...] = (), **changed: Any
) -> Make:
    """Draw inputs that must be refused: those of `make` with some arguments changed (a function draws the new one).

    Without names any error is right, else a ValueError that mentions one of `names` and one of `values`.
    """
    notes = {"_because": because, "_names": names, "_values": values, "_any_error": not names}

    def draw_bad(draw: Draw) -> Inputs:
        new = {name: value(draw) if callable(value) else value for name, value in changed.items()}
        return {**make(draw), **new, **notes}

    return draw_bad


HEAD_NAMES = (
    "num_heads", "heads", "head", "n_heads", "n_head", "nhead", "h", "dim", "dims", "d", "dimension", "dimensions",
    "embed_dim", "embedding", "embedding_dim", "d_model", "width", "channels", "features", "x", "size", "hidden",
)  # fmt: skip


def start(answer: Callable[..., Any], inputs: Inputs) -> Outputs:
    """The parameters of a new module. It also runs once, so that the trace of forbidden functions sees its forward."""
    observe(module_value, answer, inputs)
    return module_start(answer, inputs)


def in_training(answer: Callable[..., Any], inputs: Inputs) -> Outputs:
    """The module's output with given parameters, in training mode."""
    module = built(answer, inputs).train()
    return {"the output": module(*mapped(torch.clone, inputs["_forward"]).values())}


def to_the_last_digit(yours: dict[str, Any], expected: dict[str, Any], inputs: dict[str, Any]) -> str | None:
    """Judge as `same`, but to 13 digits: a small number in a denominator shows."""
    problem = same(yours, expected, inputs)
    if problem:
        return problem
    error = float((yours["the result"] - expected["the result"]).abs().max())
    return (
        f"right to nine digits only (largest error {error:.1g}); float64 holds fifteen"
        if error > 1e-13
        else None
    )


def show_weights(inputs: Inputs, expected: Any, yours: Any) -> Any:
    """Draw the attention weights of the first sequence, expected and yours."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(7, 2.8), layout="constrained")
    for axis, title, result in zip(axes, ("expected", "yours"), (expected, yours), strict=True):
        axis.set_title(f"{title}: weights")
        weights = result[1] if isinstance(result, list | tuple) and len(result) == 2 else None
        if (
            not isinstance(weights, torch.Tensor)
            or weights.dim() < 2
            or weights.is_meta
            or weights.is_complex()
        ):
            axis.axis("off")
            axis.text(0.5, 0.5, "no picture: wrong shape", ha="center")
            continue
        first = weights.detach().cpu().float().reshape(-1, *weights.shape[-2:])[0]
        axis.imshow(first, interpolation="nearest", cmap="viridis", vmin=0, vmax=1)
        axis.set_xlabel("key")
        axis.set_ylabel("query")
    return figure


STABLE_SOFTMAX = Exercise(
    name="stable_softmax",
    points=6,
    reference=stable_softmax,
    minutes=20,
    difficulty=2,
    importance=4,
    forbid=NO_SOFTMAX,
    operators=SOFTMAX_OPERATORS,
    cases=(
        Group("turns the scores of each row into weights", 1, (scores((3, 5), -1), scores((2, 4), 1, 3.0)), SOFTMAX),
        Group(
            "works along any dim of any number of dimensions",
            1,
            (
                scores((4,), 0),
                scores((4, 4), 0),
                scores((2, 3, 5), 1),
                scores((3, 4, 2), -2),
                scores((3, 2, 4), 0),
                scores((2, 3, 4, 5), -3),
                scores((3, 1), 1),
            ),
            SOFTMAX,
        ),
        Group(
            "is right and finite for scores of ±10,000",
            1,
            (
                scores((3, 5), -1, 60.0),
                around([[-1e4, -1e4, -1e4], [1e4, 1e4, 1e4]], 1),
                around([[-1e4, 1e4, 0.0], [1e4, -1e4, 1e4], [0.0, 0.0, -1e4]], -1),
                around([[1e4, -1e4], [1e4, -1e4], [0.0, 1e4]], 0),
            ),
            SOFTMAX,
        ),
        Group(
            "is exact, with nothing added to the sum",
            1,
            (scores((3, 5), -1, 1.0, torch.float64), scores((4, 3), 0, 3.0, torch.float64)),
            SOFTMAX,
            judge=to_the_last_digit,
        ),
        Group(
            "lets gradients through to the scores",
            1,
            (scores((3, 5), -1, 1.0, torch.float64), scores((3, 4, 2), 1, 2.0, torch.float64)),
            CONTRACT,
            gradients,
        ),
        Group(
            "keeps dtype and device, leaves its input alone and remembers nothing",
            1,
            (
                scores((3, 5), -1, 1.0, torch.float64),
                scores((2, 4, 3), 1),
                scores((3, 5), -1, 1.0, torch.float16),
            ),
            CONTRACT,
            manners,
        ),
    ),
    mistakes=(
        Mistake(
            "did not subtract the largest score",
            edited(stable_softmax, ("(scores - largest).exp()", "scores.exp()")),
            "exp(100) does not fit in float32 and exp(10,000) fits nowhere: you get inf / inf = NaN. Subtract the largest "
            "score first; the weights stay the same.",
        ),
        Mistake(
            "subtracted the largest of all scores",
            edited(stable_softmax, ("scores.amax(dim=dim, keepdim=True)", "scores.max()")),
            "One largest score for the whole tensor does not help a row that lies 20,000 below it: all its exponentials "
            "are 0, and 0 / 0 is NaN. Each row subtracts its own.",
        ),
        Mistake(
            "subtracted the mean",
            edited(stable_softmax, ("scores.amax(", "scores.mean(")),
            "With the mean taken away a score can still be 10,000 above 0. Subtract the largest one, so that none is above 0.",
        ),
        Mistake(
            "subtracted the smallest score",
            edited(stable_softmax, ("scores.amax(", "scores.amin(")),
            "With the smallest taken away all scores are above 0 and exp overflows even sooner. Subtract the largest.",
        ),
        Mistake(
            "cut large scores off",
            edited(stable_softmax, ("(scores - largest)", "scores.clamp(-80, 80)")),
            "`clamp` makes 100 and 10,000 equal. Subtracting the largest score keeps all differences.",
        ),
        Mistake(
            "ignored dim",
            edited(stable_softmax, ("dim=dim", "dim=-1")),
            "Your weights always sum to one along the last dimension. Use the `dim` that was given.",
        ),
        Mistake(
            "summed along the last dimension",
            edited(stable_softmax, ("exponentials.sum(dim=dim", "exponentials.sum(dim=-1")),
            "The sum goes along `dim`, like the maximum.",
        ),
        Mistake(
            "took the maximum along the last dimension",
            edited(stable_softmax, ("scores.amax(dim=dim", "scores.amax(dim=-1")),
            "Every score of a row must lose the same number, else their ratios change. Take the maximum along `dim`.",
        ),
        Mistake(
            "summed over everything",
            edited(stable_softmax, ("exponentials.sum(dim=dim, keepdim=True)", "exponentials.sum()")),
            "`sum()` adds all entries. The weights along `dim` sum to one for each row by itself.",
        ),
        Mistake(
            "forgot keepdim",
            edited(stable_softmax, ("exponentials.sum(dim=dim, keepdim=True)", "exponentials.sum(dim=dim)")),
            "Without keepdim=True the sum loses its axis, and broadcasting lines it up with another one.",
        ),
        Mistake(
            "divided by the largest instead of the sum",
            edited(stable_softmax, ("exponentials.sum(", "exponentials.amax(")),
            "Your largest weight is 1. Divide by the sum, so that the weights add up to 1.",
        ),
        Mistake(
            "divided the scores without exp",
            edited(stable_softmax, ("(scores - largest).exp()", "(scores - largest)")),
            "Without exp the scores are only scaled. exp makes every weight positive.",
        ),
        Mistake(
            "used powers of 2",
            edited(stable_softmax, (".exp()", ".exp2()")),
            "Softmax uses e = 2.718... as its base: `exp`, not `exp2`.",
        ),
        Mistake(
            "returned the logarithm",
            edited(stable_softmax, ("return exponentials / exponentials.sum(dim=dim, keepdim=True)",
                                    "return (exponentials / exponentials.sum(dim=dim, keepdim=True)).log()")),
            "Yours is the log-softmax. The weights themselves are positive and sum to one.",
        ),
        Mistake(
            "turned the sign of the scores",
            edited(stable_softmax, ("largest = scores", "scores = -scores\n    largest = scores")),
            "The largest score gets the largest weight; yours gets the smallest.",
        ),
        Mistake(
            "added a small number to the sum",
            edited(stable_softmax, ("exponentials.sum(dim=dim, keepdim=True)", "(exponentials.sum(dim=dim, keepdim=True) + 1e-9)")),
            "The sum cannot be zero: the largest score contributes exp(0) = 1. Add nothing, and the weights sum to one exactly.",
        ),
        Mistake(
            "cut the graph with detach",
            edited(stable_softmax, ("exponentials.sum(dim=dim, keepdim=True)",
                                    "exponentials.detach().sum(dim=dim, keepdim=True)")),
            "The sum depends on every score, so its gradient counts. (The largest score may be detached, the sum may not.)",
        ),
        Mistake(
            "converted to float32",
            edited(stable_softmax, ("(scores - largest)", "(scores - largest).float()")),
            "The weights come back as float32. Keep the dtype of the scores.",
        ),
        Mistake(
            "returned float32 for float16 scores",
            edited(stable_softmax, ("(scores - largest)", "(scores - largest).to(torch.promote_types(scores.dtype, torch.float32))"),
                   ("largest = scores", "import torch\n    largest = scores")),
            "Computing in float32 is fine for float16 scores, but the weights have to come back in the dtype of the scores.",
        ),
        Mistake(
            "changed the scores in place",
            edited(stable_softmax, ("(scores - largest).exp()", "scores.data.sub_(largest).exp() + 0 * scores")),
            "`-=`, `sub_` and `exp_` write into the scores of the caller. Make a new tensor: `scores - ...`.",
        ),
    ),
)  # fmt: skip

ATTENTION = Exercise(
    name="scaled_dot_product_attention",
    points=7,
    reference=scaled_dot_product_attention,
    minutes=25,
    difficulty=3,
    importance=5,
    forbid=NO_ATTENTION,
    operators=ATTENTION_OPERATORS,
    picture=show_weights,
    cases=(
        Group(
            "averages the values where all scores are equal, and copies the value of a single token",
            1,
            (same_query(2, 4, 3), tokens(2, 1, 3), same_query(1, 5, 2)),
            QKV,
        ),
        Group(
            "weighs the values by softmax(q kᵀ / √d)",
            1,
            (tokens(1, 4, 3), tokens(2, 5, 3), tokens(3, 3, 8), tokens(2, 4, 4), tokens(2, 6, 1)),
            QKV,
        ),
        Group(
            "works with any number of leading dimensions",
            1,
            (tokens(4, 3), tokens(2, 3, 5, 4), tokens(3, 2, 4, 4), tokens(2, 1, 3, 4, 5)),
            QKV,
        ),
        Group(
            "stays right and finite for large scores",
            1,
            (tokens(2, 5, 4, std=40.0, dtype=torch.float64), tokens(3, 4, std=70.0, dtype=torch.float64)),
            SOFTMAX,
        ),
        Group(
            "lets gradients of output and weights through to query, key and value",
            1,
            (tokens(2, 3, 4, dtype=torch.float64), tokens(2, 2, 5, 4, dtype=torch.float64)),
            CONTRACT,
            gradients,
        ),
        Group(
            "keeps dtype and device, leaves its inputs alone and remembers nothing",
            1,
            (tokens(2, 5, 4, dtype=torch.float64), tokens(2, 3, 4, 5)),
            CONTRACT,
            manners,
        ),
        Group(
            "refuses shapes that do not fit",
            1,
            (
                but(tokens(2, 4, 3), "keys of another width than the queries", key=lambda draw: draw.normal(2, 4, 5)),
                but(tokens(2, 4, 3), "more values than keys", value=lambda draw: draw.normal(2, 6, 3)),
                but(tokens(2, 4, 3), "fewer values than keys", value=lambda draw: draw.normal(2, 3, 3)),
            ),
            CONTRACT,
        ),
    ),
    mistakes=(
        Mistake(
            "forgot to scale the scores",
            edited(scaled_dot_product_attention, (" / math.sqrt(query.shape[-1])", "")),
            "The scores are divided by √d. A dot product of d random terms has standard deviation √d: without the scale "
            "the softmax gets too sharp.",
        ),
        Mistake(
            "scaled by d instead of √d",
            edited(scaled_dot_product_attention, ("math.sqrt(query.shape[-1])", "query.shape[-1]")),
            "You divide by d; the scores are divided by its square root. For d = 64 that is 8, not 64.",
        ),
        Mistake(
            "multiplied by √d",
            edited(scaled_dot_product_attention, (" / math.sqrt", " * math.sqrt")),
            "√d divides the scores. Yours get d times too large.",
        ),
        Mistake(
            "scaled by the number of tokens",
            edited(scaled_dot_product_attention, ("math.sqrt(query.shape[-1])", "math.sqrt(query.shape[-2])")),
            "d is the width of a query, its last axis. You take the number of tokens, the axis before.",
        ),
        Mistake(
            "scaled the weights instead of the scores",
            edited(scaled_dot_product_attention, (" / math.sqrt(query.shape[-1])", ""),
                   ("stable_softmax(scores, dim=-1)", "stable_softmax(scores, dim=-1) / math.sqrt(query.shape[-1])")),
            "Your weights do not sum to one. The scale belongs inside the softmax.",
        ),
        Mistake(
            "normalised over the queries",
            edited(scaled_dot_product_attention, ("dim=-1)", "dim=-2)")),
            "Your columns sum to one. Each query spreads a weight of one over all keys: the softmax goes along the last axis.",
        ),
        Mistake(
            "normalised over the first axis",
            edited(scaled_dot_product_attention, ("dim=-1)", "dim=0)")),
            "The softmax goes along the axis of the keys, which is the last one, not along the batch.",
        ),
        Mistake(
            "left the softmax out",
            edited(scaled_dot_product_attention, ("stable_softmax(scores, dim=-1)", "scores")),
            "Scores may be negative and sum to anything. The softmax turns them into weights.",
        ),
        Mistake(
            "let keys ask and queries answer",
            edited(scaled_dot_product_attention, ("query @ key.transpose(-2, -1)", "key @ query.transpose(-2, -1)")),
            "Your scores are transposed. Row i of q kᵀ belongs to query i, column j to key j.",
        ),
        Mistake(
            "gathered with the transposed weights",
            edited(scaled_dot_product_attention, ("weights @ value", "weights.transpose(-2, -1) @ value")),
            "Token i gathers with row i of the weights, which sums to one. You use column i.",
        ),
        Mistake(
            "gathered keys instead of values",
            edited(scaled_dot_product_attention, ("weights @ value", "weights @ key")),
            "Keys decide where to look, values are what is found there. The output is a weighted mean of values.",
        ),
        Mistake(
            "compared queries with values",
            edited(scaled_dot_product_attention, ("query @ key.transpose", "query @ value.transpose")),
            "The scores compare queries with keys.",
        ),
        Mistake(
            "returned only the output",
            edited(scaled_dot_product_attention, ("return weights @ value, weights", "return weights @ value")),
            "Two things come back: (output, weights).",
        ),
        Mistake(
            "returned weights before output",
            edited(scaled_dot_product_attention, ("return weights @ value, weights", "return weights, weights @ value")),
            "The order is (output, weights).",
        ),
        Mistake(
            "returned scores instead of weights",
            edited(scaled_dot_product_attention, ("weights @ value, weights", "weights @ value, scores")),
            "The output is right. Beside it comes what the softmax gave, whose rows sum to one, not the scores.",
        ),
        Mistake(
            "swapped two fixed axes of the key",
            edited(scaled_dot_product_attention, ("key.transpose(-2, -1)", "key.transpose(1, 2)")),
            "transpose(1, 2) is right for three axes only. Count from the end, and any number of leading axes works.",
        ),
        Mistake(
            "reshaped the key instead of transposing it",
            edited(scaled_dot_product_attention, ("key.transpose(-2, -1)", "key.reshape(*key.shape[:-2], key.shape[-1], key.shape[-2])")),
            "`reshape` never moves a value in memory: the entries of your keys are mixed. Transpose the last two axes.",
        ),
        Mistake(
            "took d from the second axis",
            edited(scaled_dot_product_attention, ("math.sqrt(query.shape[-1])", "math.sqrt(query.shape[1])")),
            "The second axis is d for one sequence only. d is always the last axis.",
        ),
        Mistake(
            "let the softmax overflow",
            edited(scaled_dot_product_attention, ("stable_softmax(scores, dim=-1)", "scores.exp() / scores.exp().sum(-1, keepdim=True)")),
            "exp of a large score is inf, and inf / inf is NaN. Use your stable_softmax.",
        ),
        Mistake(
            "masked the tokens that come later",
            edited(scaled_dot_product_attention, ("weights = stable", "scores = scores + scores.new_full(scores.shape, -1e9).triu(1)\n    weights = stable")),
            "A mask belongs into language models that must not look ahead. In an image every patch looks at every patch.",
        ),
        Mistake(
            "compared directions only",
            edited(scaled_dot_product_attention, ("query @ key.transpose(-2, -1)",
                   "query / query.norm(dim=-1, keepdim=True).clamp(min=1e-12) @ (key / key.norm(dim=-1, keepdim=True)).transpose(-2, -1)")),
            "The cosine forgets how long queries and keys are. The score is the plain dot product, divided by √d.",
        ),
        Mistake(
            "detached the weights",
            edited(scaled_dot_product_attention, ("return weights @ value", "return weights.detach() @ value")),
            "No gradient reaches query and key from the output, so nobody learns where to look.",
        ),
        Mistake(
            "returned detached weights",
            edited(scaled_dot_product_attention, ("value, weights", "value, weights.detach()")),
            "Gradients go through both results. Detach weights where you draw them, not here.",
        ),
        Mistake(
            "converted to float32",
            edited(scaled_dot_product_attention, ("math.sqrt(query.shape[-1])", "math.sqrt(query.shape[-1])\n    scores, value = scores.float(), value.float()")),
            "float64 tokens give a float32 result. Keep the dtype of the input.",
        ),
        Mistake(
            "computed the softmax in float32",
            edited(scaled_dot_product_attention, ("stable_softmax(scores, dim=-1)", "stable_softmax(scores.float(), dim=-1).to(scores.dtype)")),
            "The dtype is right, but digits were lost on the way through float32.",
        ),
        Mistake(
            "scaled the query in place",
            edited(scaled_dot_product_attention, ("query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])",
                   "(query.data.div_(math.sqrt(query.shape[-1])) + query - query.detach()) @ key.transpose(-2, -1)")),
            "`query /= ...` and `div_` change the query of the caller. Divide the scores instead.",
        ),
    ),
)  # fmt: skip

SPLIT_HEADS = Exercise(
    name="split_heads",
    points=5,
    reference=split_heads,
    minutes=15,
    difficulty=2,
    importance=4,
    cases=(
        Group("cuts the tokens of one image into heads", 1, (widths(1, 3, 8, 2), widths(1, 5, 12, 3)), HEADS),
        Group(
            "works for any batch, number of tokens, heads and width",
            1,
            (widths(2, 3, 20, 4), widths(3, 5, 4, 2), widths(2, 4, 6, 1), widths(2, 3, 5, 5), widths(3, 1, 8, 2), widths(2, 3, 9, 3)),
            HEADS,
        ),
        Group("lets gradients through to the tokens", 1, (widths(2, 3, 8, 4, torch.float64),), CONTRACT, gradients),
        Group(
            "keeps dtype and device, leaves its input alone and remembers nothing",
            1,
            (widths(2, 3, 8, 4, torch.float64), widths(3, 4, 6, 3)),
            CONTRACT,
            manners,
        ),
        Group(
            "refuses a width that is not divisible by the number of heads",
            1,
            (
                but(widths(2, 3, 6, 4), "a width that is not divisible", HEAD_NAMES, (6, 4)),
                but(widths(2, 3, 10, 3), "a width that is not divisible", HEAD_NAMES, (10, 3)),
                but(widths(2, 4, 6, 12), "more heads than entries", HEAD_NAMES, (6, 12)),
            ),
            CONTRACT,
        ),
    ),
    mistakes=(
        Mistake(
            "dealt the entries out like cards",
            edited(split_heads, ("x.reshape(batch, tokens, num_heads, dim // num_heads).transpose(1, 2)",
                                 "x.reshape(batch, tokens, dim // num_heads, num_heads).permute(0, 3, 1, 2)")),
            "Your head 0 gets entries 0, h, 2h, ... A head is a block of neighbours: D splits into (h, d), not (d, h).",
        ),
        Mistake(
            "reshaped without moving axes",
            edited(split_heads, ("x.reshape(batch, tokens, num_heads, dim // num_heads).transpose(1, 2)",
                                 "x.reshape(batch, num_heads, tokens, dim // num_heads)")),
            "`reshape` never moves a value in memory: your heads hold whole tokens. Split the last axis first, then swap the "
            "axes of tokens and heads.",
        ),
        Mistake(
            "left the heads behind the tokens",
            edited(split_heads, (".transpose(1, 2)", "")),
            "The values are right, the order of axes is not: (B, h, N, d), so that each head is a sequence of its own.",
        ),
        Mistake(
            "swapped the number of heads and their width",
            edited(split_heads, ("num_heads, dim // num_heads)", "dim // num_heads, num_heads)")),
            "There are num_heads heads, each D / num_heads wide. Yours are the other way round.",
        ),
        Mistake(
            "put the tokens last",
            edited(split_heads, (".transpose(1, 2)", ".permute(0, 2, 3, 1)")),
            "The last two axes are tokens and width, (N, d). Yours are (d, N).",
        ),
        Mistake(
            "put the heads before the batch",
            edited(split_heads, (".transpose(1, 2)", ".permute(2, 0, 1, 3)")),
            "The batch stays first: (B, h, N, d).",
        ),
        Mistake(
            "joined batch and heads",
            edited(split_heads, (".transpose(1, 2)", ".transpose(1, 2).flatten(0, 1)")),
            "Batch and heads stay two axes: (B, h, N, d).",
        ),
        Mistake(
            "split the tokens instead of the width",
            edited(split_heads, ("x.reshape(batch, tokens, num_heads, dim // num_heads).transpose(1, 2)",
                                 "x.transpose(1, 2).reshape(batch, num_heads, dim // num_heads, tokens).transpose(2, 3).flip(2)")),
            "Every head sees all tokens, in the same order, and a part of the width of each.",
        ),
        Mistake(
            "reversed the heads",
            edited(split_heads, (".transpose(1, 2)", ".transpose(1, 2).flip(1)")),
            "Head 0 gets the first d entries.",
        ),
        Mistake(
            "handled only the first image of a batch",
            edited(split_heads, ("return x.reshape(batch,", "return x[:1].reshape(1,")),
            "Only one image comes out. The first axis counts images and has to survive.",
        ),
        Mistake(
            "cut the graph with detach",
            edited(split_heads, ("return x.", "return x.detach().")),
            "No gradient reaches the tokens. Leave `detach`, `.data` and NumPy out.",
        ),
        Mistake(
            "converted to float32",
            edited(split_heads, ("return x.", "return x.float().")),
            "float64 tokens come back as float32. Keep the dtype of the input.",
        ),
        Mistake(
            "changed the tokens in place",
            edited(split_heads, ("return x.", "x.data.clamp_(-1, 1)\n    return x.")),
            "Your function writes into the tokens it was given.",
        ),
        Mistake(
            "dropped the entries that do not fit",
            edited(split_heads, ("if num_heads < 1 or dim % num_heads != 0:", "dim -= dim % num_heads\n    if dim == 0:"),
                   ("return x.", "return x[..., :dim].")),
            "With D = 10 and 3 heads your last entry vanishes. Raise a ValueError that names dim and num_heads.",
        ),
        Mistake(
            "let torch's own error through",
            edited(split_heads, ("if num_heads < 1 or dim % num_heads != 0", "if num_heads < 1")),
            "A width that is not divisible ends in an error about a shape. Check it first and raise a ValueError that says why.",
        ),
        Mistake(
            "used assert instead of ValueError",
            edited(split_heads, ("raise ValueError", "raise AssertionError")),
            "`assert` states what cannot happen and disappears under `python -O`. For a bad argument raise a ValueError.",
        ),
        Mistake(
            "wrote an error message without the value",
            edited(split_heads, ("dim {dim} is not divisible by num_heads {num_heads}", "dim is not divisible by num_heads")),
            'Your ValueError does not give the values. "dim 10 is not divisible by num_heads 3" tells at once what to change.',
        ),
    ),
)  # fmt: skip

MERGE_HEADS = Exercise(
    name="merge_heads",
    points=4,
    reference=merge_heads,
    minutes=10,
    difficulty=2,
    importance=4,
    cases=(
        Group("puts the heads of one image side by side", 1, (heads(1, 2, 3, 4), heads(1, 3, 5, 2)), HEADS),
        Group(
            "works for any batch, number of tokens, heads and width",
            1,
            (heads(2, 4, 3, 5), heads(3, 2, 5, 2), heads(2, 1, 4, 6), heads(2, 5, 3, 1), heads(3, 2, 1, 4), heads(2, 3, 3, 3)),
            HEADS,
        ),
        Group("lets gradients through to every head", 1, (heads(2, 4, 3, 2, torch.float64),), CONTRACT, gradients),
        Group(
            "keeps dtype and device, leaves its input alone and remembers nothing",
            1,
            (heads(2, 4, 3, 2, torch.float64), heads(3, 2, 4, 5)),
            CONTRACT,
            manners,
        ),
    ),
    mistakes=(
        Mistake(
            "reshaped without moving axes",
            edited(merge_heads, ("x.transpose(1, 2).reshape", "x.reshape")),
            "`reshape` never moves a value in memory: your tokens hold entries of several tokens. Bring the heads beside "
            "their width first: (B, N, h, d).",
        ),
        Mistake(
            "mixed the entries of the heads",
            edited(merge_heads, ("x.transpose(1, 2)", "x.permute(0, 2, 3, 1)")),
            "Entry 0 of every head comes first in your result. A head stays together: first all d entries of head 0.",
        ),
        Mistake(
            "added the heads",
            edited(merge_heads, ("return x.transpose(1, 2).reshape(batch, tokens, num_heads * head_dim)", "return x.sum(1)")),
            "Heads are put side by side: h heads of width d give D = h·d. The sum is only d wide.",
        ),
        Mistake(
            "averaged the heads",
            edited(merge_heads, ("return x.transpose(1, 2).reshape(batch, tokens, num_heads * head_dim)", "return x.mean(1)")),
            "Heads are put side by side, none of them is averaged away: D = h·d.",
        ),
        Mistake(
            "kept only the first head",
            edited(merge_heads, ("return x.transpose(1, 2).reshape(batch, tokens, num_heads * head_dim)", "return x[:, 0]")),
            "All heads go into the result, side by side.",
        ),
        Mistake(
            "repeated the first head",
            edited(merge_heads, ("x.transpose(1, 2)", "x[:, :1].expand_as(x).transpose(1, 2)")),
            "Every part of your result comes from head 0. Each head fills its own part.",
        ),
        Mistake(
            "joined the heads along the tokens",
            edited(merge_heads, ("x.transpose(1, 2).reshape(batch, tokens, num_heads * head_dim)",
                                 "x.reshape(batch, num_heads * tokens, head_dim)")),
            "The number of tokens stays N; it is the width that grows from d to D.",
        ),
        Mistake(
            "left the axes apart",
            edited(merge_heads, (".reshape(batch, tokens, num_heads * head_dim)", "")),
            "The order is right. Flatten the last two axes to one of width D.",
        ),
        Mistake(
            "reversed the heads",
            edited(merge_heads, ("x.transpose(1, 2)", "x.flip(1).transpose(1, 2)")),
            "Head 0 gives the first d entries.",
        ),
        Mistake(
            "put the tokens before the batch",
            edited(merge_heads, ("x.transpose(1, 2).reshape(batch, tokens, num_heads * head_dim)",
                                 "x.permute(2, 0, 1, 3).reshape(tokens, batch, num_heads * head_dim)")),
            "The batch stays first: (B, N, D).",
        ),
        Mistake(
            "swapped heads and width",
            edited(merge_heads, ("x.transpose(1, 2)", "x.transpose(1, 3)")),
            "Only the axes of heads and tokens change places: axes 1 and 2.",
        ),
        Mistake(
            "handled only the first image of a batch",
            edited(merge_heads, ("return x.", "return x[:1]."), ("reshape(batch,", "reshape(1,")),
            "Only one image comes out. The first axis counts images and has to survive.",
        ),
        Mistake(
            "cut the graph with detach",
            edited(merge_heads, ("return x.", "return x.detach().")),
            "No gradient reaches the heads. Leave `detach`, `.data` and NumPy out.",
        ),
        Mistake(
            "converted to float32",
            edited(merge_heads, ("return x.", "return x.float().")),
            "float64 heads come back as float32. Keep the dtype of the input.",
        ),
        Mistake(
            "filled a new tensor on the CPU",
            edited(merge_heads, ("return x.transpose(1, 2).reshape(batch, tokens, num_heads * head_dim)",
                                 "import torch\n    out = torch.zeros(batch, tokens, num_heads * head_dim, dtype=x.dtype)\n"
                                 "    out[:] = x.transpose(1, 2).flatten(2)\n    return out")),
            "The result is made on the CPU, whatever the device of the heads. Use `x.new_zeros(...)`.",
        ),
        Mistake(
            "changed the heads in place",
            edited(merge_heads, ("return x.", "x.data.clamp_(-1, 1)\n    return x.")),
            "Your function writes into the heads it was given.",
        ),
    ),
)  # fmt: skip

MULTI_HEAD = Exercise(
    name="multi_head_self_attention",
    points=7,
    reference=multi_head_self_attention,
    minutes=30,
    difficulty=4,
    importance=5,
    forbid=NO_ATTENTION,
    operators=ATTENTION_OPERATORS,
    cases=(
        Group("computes attention with one head", 1, (self_attention(1, 3, 4, 1), self_attention(2, 5, 6, 1)), MSA),
        Group(
            "lets several heads look at different places",
            2,
            (self_attention(1, 4, 6, 2), self_attention(2, 5, 12, 3), self_attention(3, 4, 8, 4), self_attention(2, 7, 10, 2)),
            HEADS,
        ),
        Group(
            "works for one token, for heads of one entry and for equal sizes",
            1,
            (self_attention(2, 1, 6, 3), self_attention(2, 4, 5, 5), self_attention(4, 4, 4, 2), self_attention(3, 3, 9, 3)),
            MSA,
        ),
        Group(
            "lets gradients through to tokens, weights and biases",
            1,
            (self_attention(2, 3, 8, 2, torch.float64), self_attention(2, 4, 4, 1, torch.float64)),
            CONTRACT,
            gradients,
        ),
        Group(
            "keeps dtype and device, leaves its inputs alone and remembers nothing",
            1,
            (self_attention(2, 5, 12, 3, torch.float64), self_attention(2, 3, 8, 4)),
            CONTRACT,
            manners,
        ),
        Group(
            "refuses shapes that do not fit",
            1,
            (
                but(self_attention(2, 3, 6, 4), "a width that is not divisible by num_heads", HEAD_NAMES, (6, 4)),
                but(self_attention(2, 3, 10, 3), "a width that is not divisible by num_heads", HEAD_NAMES, (10, 3)),
                but(self_attention(2, 3, 6, 2), "tokens of another width", x=lambda draw: draw.normal(2, 3, 8)),
                but(self_attention(2, 3, 6, 2), "a projection of another width", proj_weight=lambda draw: draw.normal(8, 8)),
            ),
            CONTRACT,
        ),
    ),
    mistakes=(
        Mistake(
            "swapped queries and keys",
            edited(multi_head_self_attention, ("q, k, v = F.linear", "k, q, v = F.linear")),
            "The first D rows of qkv_weight make the queries, the next D the keys.",
        ),
        Mistake(
            "swapped keys and values",
            edited(multi_head_self_attention, ("q, k, v = F.linear", "q, v, k = F.linear")),
            "The last D rows of qkv_weight make the values, the D before them the keys.",
        ),
        Mistake(
            "split each head into queries, keys and values",
            edited(multi_head_self_attention, ("q, k, v = F.linear(x, qkv_weight, qkv_bias).chunk(3, dim=-1)",
                   "q, k, v = F.linear(x, qkv_weight, qkv_bias).unflatten(-1, (num_heads, 3, -1)).unbind(-2)\n"
                   "    q, k, v = q.flatten(-2), k.flatten(-2), v.flatten(-2)")),
            "You read the 3D outputs as (h, 3, d): first head 0 with its q, k and v. They are (3, h, d): first all queries.",
        ),
        Mistake(
            "dealt queries, keys and values out like cards",
            edited(multi_head_self_attention, ("q, k, v = F.linear(x, qkv_weight, qkv_bias).chunk(3, dim=-1)",
                                               "q, k, v = F.linear(x, qkv_weight, qkv_bias).unflatten(-1, (-1, 3)).unbind(-1)")),
            "You take every third output. Queries, keys and values are three blocks of D outputs, one after another.",
        ),
        Mistake(
            "split the heads by dealing entries out",
            edited(multi_head_self_attention, ("split_heads(q, num_heads), split_heads(k, num_heads), split_heads(v, num_heads)",
                   "[each.unflatten(-1, (-1, num_heads)).permute(0, 3, 1, 2) for each in (q, k, v)]"),
                   ("merge_heads(heads)", "heads.permute(0, 2, 3, 1).flatten(2)")),
            "A head is a block of neighbouring entries: D splits into (h, d), not (d, h).",
        ),
        Mistake(
            "scaled by √D instead of √d",
            edited(multi_head_self_attention, ("split_heads(q, num_heads),", "split_heads(q, num_heads) / math.sqrt(num_heads),")),
            "Each head has width d = D / h, and its scores are divided by √d. You divide by the root of the whole width.",
        ),
        Mistake(
            "computed one head only",
            edited(multi_head_self_attention, (", num_heads)", ", 1)")),
            "Your result does not depend on num_heads. Every head computes its own weights from its own part of q and k.",
        ),
        Mistake(
            "used the weights of the first head for all",
            edited(multi_head_self_attention, ("heads, _ = scaled_dot_product_attention(q, k, v)",
                                               "heads, _ = scaled_dot_product_attention(q[:, :1], k[:, :1], v[:, :1])\n"
                                               "    heads = scaled_dot_product_attention(q[:, :1].expand_as(q), k[:, :1].expand_as(k), v)[0]")),
            "All your heads look at the same places. Each computes weights of its own.",
        ),
        Mistake(
            "let heads attend to heads",
            edited(multi_head_self_attention, ("heads, _ = scaled_dot_product_attention(q, k, v)",
                   "heads, _ = scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))\n"
                   "    heads = heads.transpose(1, 2)")),
            "Your softmax runs over the heads of one token. Bring q, k and v to (B, h, N, d) first, so that tokens attend to "
            "tokens.",
        ),
        Mistake(
            "merged the heads without moving axes",
            edited(multi_head_self_attention, ("merge_heads(heads)", "heads.reshape(x.shape)")),
            "A reshape from (B, h, N, d) to (B, N, D) mixes tokens. Swap the axes of heads and tokens first.",
        ),
        Mistake(
            "forgot the bias of q, k and v",
            edited(multi_head_self_attention, ("F.linear(x, qkv_weight, qkv_bias)", "F.linear(x, qkv_weight)")),
            "qkv_bias is given but never added.",
        ),
        Mistake(
            "forgot the output projection",
            edited(multi_head_self_attention, ("F.linear(merge_heads(heads), proj_weight, proj_bias)", "merge_heads(heads)")),
            "After the heads stand side by side, one more linear map mixes them: proj_weight and proj_bias.",
        ),
        Mistake(
            "forgot the bias of the output projection",
            edited(multi_head_self_attention, ("F.linear(merge_heads(heads), proj_weight, proj_bias)", "F.linear(merge_heads(heads), proj_weight)")),
            "proj_bias is given but never added.",
        ),
        Mistake(
            "transposed the output projection",
            edited(multi_head_self_attention, ("F.linear(merge_heads(heads), proj_weight, proj_bias)",
                                               "F.linear(merge_heads(heads), proj_weight.T, proj_bias)")),
            "F.linear computes x Wᵀ + b: the rows of a weight belong to the outputs. You multiply by W itself.",
        ),
        Mistake(
            "added the input to the output",
            edited(multi_head_self_attention, ("return F.linear", "return x + F.linear")),
            "The residual connection belongs to the encoder block, in the next chapter. MSA alone returns its output.",
        ),
        Mistake(
            "normalised the input first",
            edited(multi_head_self_attention, ("F.linear(x, qkv", "F.linear(F.layer_norm(x, x.shape[-1:]), qkv")),
            "The LayerNorm belongs to the encoder block, in the next chapter. MSA takes x as it is.",
        ),
        Mistake(
            "masked the tokens that come later",
            edited(multi_head_self_attention, ("heads, _ = scaled_dot_product_attention(q, k, v)",
                   "scores = (q @ k.mT / math.sqrt(q.shape[-1])) + x.new_full((x.shape[1], x.shape[1]), -1e9).triu(1)\n"
                   "    heads = stable_softmax(scores, dim=-1) @ v")),
            "A mask belongs into language models that must not look ahead. In an image every patch looks at every patch.",
        ),
        Mistake(
            "let the images of a batch attend to each other",
            edited(multi_head_self_attention, ("heads, _ = scaled_dot_product_attention(q, k, v)",
                   "joined = [each.transpose(0, 1).flatten(1, 2) for each in (q, k, v)]\n"
                   "    heads = scaled_dot_product_attention(*joined)[0].unflatten(1, q.shape[:1] + q.shape[2:3]).transpose(0, 1)")),
            "The tokens of all images went into one sequence. Each image attends to itself only.",
        ),
        Mistake(
            "treated every image as the first one",
            edited(multi_head_self_attention, ("return F.linear(merge_heads(heads), proj_weight, proj_bias)",
                                               "return F.linear(merge_heads(heads), proj_weight, proj_bias)[:1].expand_as(x)")),
            "All images of the batch get the result of the first one.",
        ),
        Mistake(
            "detached queries and keys",
            edited(multi_head_self_attention, ("scaled_dot_product_attention(q, k, v)", "scaled_dot_product_attention(q.detach(), k.detach(), v)")),
            "The result is right, but nothing is learned about where to look: no gradient goes through q and k.",
        ),
        Mistake(
            "converted to float32",
            edited(multi_head_self_attention, ("heads, _ = scaled_dot_product_attention(q, k, v)",
                   "heads, _ = scaled_dot_product_attention(q.float(), k.float(), v.float())\n    heads = heads.to(x.dtype)")),
            "The dtype is right, but digits were lost on the way through float32.",
        ),
        Mistake(
            "changed the tokens in place",
            edited(multi_head_self_attention, ("q, k, v = F.linear", "x.data.clamp_(-1, 1)\n    q, k, v = F.linear")),
            "Your function writes into the tokens it was given.",
        ),
        Mistake(
            "dropped the entries that do not fit",
            edited(multi_head_self_attention, ("    q, k, v = split", "    keep = q.shape[-1] // num_heads * num_heads\n    q, k, v = q[..., :keep], k[..., :keep], v[..., :keep]\n    q, k, v = split"),
                   ("merge_heads(heads), proj_weight, proj_bias", "merge_heads(heads), proj_weight[:, :keep], proj_bias")),
            "With D = 10 and 3 heads one entry vanishes. Raise a ValueError that names dim and num_heads.",
        ),
        Mistake(
            "let torch's own error through",
            edited(multi_head_self_attention, ("split_heads(q, num_heads), split_heads(k, num_heads), split_heads(v, num_heads)",
                   "[each.unflatten(-1, (num_heads, q.shape[-1] // num_heads)).transpose(1, 2) for each in (q, k, v)]")),
            "A width that is not divisible ends in an error about a shape. Raise a ValueError that names dim and num_heads; "
            "your split_heads does.",
        ),
    ),
)  # fmt: skip

MODULE = Exercise(
    name="MultiHeadSelfAttention",
    points=7,
    reference=MultiHeadSelfAttention,
    minutes=20,
    difficulty=3,
    importance=5,
    probe=module_value,
    forbid=NO_ATTENTION,
    operators=ATTENTION_OPERATORS,
    cases=(
        Group(
            "has the parameters of the contract, all trainable",
            1,
            (module(2, 3, 8, 2), module(1, 2, 9, 3)),
            MSA,
            start,
            has_parameters,
        ),
        Group("computes attention with one head", 1, (module(1, 3, 4, 1), module(2, 5, 6, 1)), MSA),
        Group(
            "computes attention with several heads, for any number of tokens",
            1,
            (module(2, 5, 12, 3), module(3, 4, 8, 4), module(2, 1, 6, 3), module(2, 4, 5, 5), module(4, 4, 4, 2)),
            HEADS,
        ),
        Group("computes the same in training mode", 1, (module(2, 5, 12, 3), module(3, 4, 8, 2)), MSA, in_training),
        Group(
            "lets gradients through to tokens and all parameters",
            1,
            (module(2, 3, 8, 2, torch.float64),),
            CONTRACT,
            module_gradients,
        ),
        Group(
            "keeps dtype and device, leaves tokens and parameters alone and remembers nothing",
            1,
            (module(2, 5, 12, 3, torch.float64), module(2, 3, 8, 4)),
            CONTRACT,
            module_manners,
        ),
        Group(
            "refuses a dim that is not divisible by num_heads",
            1,
            (
                but(module(2, 3, 6, 4), "a dim that is not divisible by num_heads", HEAD_NAMES, (6, 4)),
                but(module(2, 3, 10, 3), "a dim that is not divisible by num_heads", HEAD_NAMES, (10, 3)),
                but(module(2, 3, 6, 12), "more heads than entries", HEAD_NAMES, (6, 12)),
                but(module(2, 3, 6, 2), "tokens of another width", _forward=lambda draw: {"x": draw.normal(2, 3, 8)}),
            ),
            CONTRACT,
        ),
    ),
    mistakes=(
        Mistake(
            "left the bias of qkv out",
            edited(MultiHeadSelfAttention, ("nn.Linear(dim, 3 * dim)", "nn.Linear(dim, 3 * dim, bias=False)")),
            "qkv has a bias: leave `bias` of nn.Linear at its default.",
        ),
        Mistake(
            "left the bias of proj out",
            edited(MultiHeadSelfAttention, ("nn.Linear(dim, dim)", "nn.Linear(dim, dim, bias=False)")),
            "proj has a bias: leave `bias` of nn.Linear at its default.",
        ),
        Mistake(
            "made three layers for q, k and v",
            edited(MultiHeadSelfAttention, ("self.qkv = nn.Linear(dim, 3 * dim)",
                   "self.q, self.k, self.v = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)"),
                   ("self.qkv.weight, self.qkv.bias,", "torch.cat([self.q.weight, self.k.weight, self.v.weight]), torch.cat([self.q.bias, self.k.bias, self.v.bias]),"),
                   ("return multi", "import torch\n        return multi")),
            "The contract has one layer `qkv` of 3D outputs, so that weights of timm fit by name.",
        ),
        Mistake(
            "made qkv only D wide",
            edited(MultiHeadSelfAttention, ("nn.Linear(dim, 3 * dim)", "nn.Linear(dim, dim)")),
            "Queries, keys and values need D outputs each: 3D together.",
        ),
        Mistake(
            "forgot the output projection",
            edited(MultiHeadSelfAttention, ("self.proj = nn.Linear(dim, dim)", "pass"),
                   ("self.proj.weight, self.proj.bias", "torch.eye(x.shape[-1]), torch.zeros(x.shape[-1])"),
                   ("return multi", "import torch\n        return multi")),
            "After the heads stand side by side, one more linear map mixes them: `proj`.",
        ),
        Mistake(
            "never used the output projection",
            edited(MultiHeadSelfAttention, ("self.proj.weight, self.proj.bias", "torch.eye(x.shape[-1], dtype=x.dtype, device=x.device), 0 * self.proj.bias"),
                   ("return multi", "import torch\n        return multi")),
            "`proj` is made but not used in forward.",
        ),
        Mistake(
            "stored the weights as plain tensors",
            edited(MultiHeadSelfAttention, ("self.proj = nn.Linear(dim, dim)", "self.proj = nn.Linear(dim, dim)\n        weight = self.proj.weight.detach()\n        del self.proj.weight\n        self.proj.weight = weight")),
            "A plain tensor is neither trained nor saved nor moved to the GPU. nn.Linear makes parameters.",
        ),
        Mistake(
            "froze the projection",
            edited(MultiHeadSelfAttention, ("self.proj = nn.Linear(dim, dim)", "self.proj = nn.Linear(dim, dim).requires_grad_(False)")),
            "All parameters are trained: leave `requires_grad` at its default.",
        ),
        Mistake(
            "added layers that the contract does not have",
            edited(MultiHeadSelfAttention, ("self.proj = nn.Linear(dim, dim)", "self.proj = nn.Linear(dim, dim)\n        self.norm = nn.LayerNorm(dim)"),
                   ("x, self.qkv", "self.norm(x), self.qkv")),
            "The module holds `qkv` and `proj` and nothing else. The LayerNorm belongs to the encoder block, in the next chapter.",
        ),
        Mistake(
            "computed one head only",
            edited(MultiHeadSelfAttention, ("self.num_heads\n", "1\n")),
            "Your result does not depend on num_heads. Keep it in the constructor and use it in forward.",
        ),
        Mistake(
            "scaled by √D instead of √d",
            edited(MultiHeadSelfAttention, ("x, self.qkv.weight, self.qkv.bias,",
                   "x, torch.cat([self.qkv.weight[: x.shape[-1]] / self.num_heads**0.5, self.qkv.weight[x.shape[-1] :]]), "
                   "torch.cat([self.qkv.bias[: x.shape[-1]] / self.num_heads**0.5, self.qkv.bias[x.shape[-1] :]]),"),
                   ("return multi", "import torch\n        return multi")),
            "Each head has width d = D / h, and its scores are divided by √d. You divide by the root of the whole width.",
        ),
        Mistake(
            "split each head into queries, keys and values",
            edited(MultiHeadSelfAttention, ("x, self.qkv.weight, self.qkv.bias,",
                   "x, self.qkv.weight.unflatten(0, (self.num_heads, 3, -1)).transpose(0, 1).flatten(0, 2), "
                   "self.qkv.bias.unflatten(0, (self.num_heads, 3, -1)).transpose(0, 1).flatten(),")),
            "You read the 3D outputs as (h, 3, d): first head 0 with its q, k and v. They are (3, h, d): first all queries.",
        ),
        Mistake(
            "swapped keys and values",
            edited(MultiHeadSelfAttention, ("x, self.qkv.weight, self.qkv.bias,",
                   "x, self.qkv.weight.unflatten(0, (3, -1))[[0, 2, 1]].flatten(0, 1), self.qkv.bias.unflatten(0, (3, -1))[[0, 2, 1]].flatten(),")),
            "The order is queries, keys, values: the last D outputs of qkv are the values.",
        ),
        Mistake(
            "added the input to the output",
            edited(MultiHeadSelfAttention, ("return multi", "return x + multi")),
            "The residual connection belongs to the encoder block, in the next chapter. MSA alone returns its output.",
        ),
        Mistake(
            "dropped entries in training mode",
            edited(MultiHeadSelfAttention, ("return multi", "return F.dropout(x, 0.1, self.training) * 0 + multi"), ("x, self.qkv", "F.dropout(x, 0.3, self.training), self.qkv")),
            "The contract has no dropout here. It joins in the encoder block, with an argument of its own.",
        ),
        Mistake(
            "detached the tokens",
            edited(MultiHeadSelfAttention, ("x, self.qkv", "x.detach(), self.qkv")),
            "No gradient reaches the layers before this one. Leave `detach` and `torch.no_grad` out.",
        ),
        Mistake(
            "used .data of the parameters",
            edited(MultiHeadSelfAttention, ("self.qkv.weight, self.qkv.bias", "self.qkv.weight.data, self.qkv.bias.data")),
            "`.data` cuts the graph: qkv gets no gradient and is never trained. Use the parameters themselves.",
        ),
        Mistake(
            "converted to float32",
            edited(MultiHeadSelfAttention, ("return multi", "x = x.float().to(x.dtype)\n        return multi")),
            "The dtype is right, but digits were lost on the way through float32.",
        ),
        Mistake(
            "remembered the first output",
            edited(MultiHeadSelfAttention, ("return multi", "if hasattr(self, 'first') and self.first.shape == x.shape:\n            return self.first\n        self.first = multi"),
                   ("self.num_heads\n        )", "self.num_heads\n        )\n        return self.first")),
            "A second call returns the result of the first one. Compute it anew for every x.",
        ),
        Mistake(
            "changed the tokens in place",
            edited(MultiHeadSelfAttention, ("return multi", "x.data.clamp_(-1, 1)\n        return multi")),
            "Your module writes into the tokens it was given.",
        ),
        Mistake(
            "let torch's own error through",
            edited(MultiHeadSelfAttention, ("if num_heads < 1 or dim % num_heads != 0", "if False"),
                   ("return multi_head_self_attention(", "head_dim = x.shape[-1] // self.num_heads\n        x.reshape(*x.shape[:2], self.num_heads, head_dim)\n        return multi_head_self_attention(")),
            "A dim that is not divisible ends in an error about a shape. Check it in the constructor and raise a ValueError.",
        ),
        Mistake(
            "used assert instead of ValueError",
            edited(MultiHeadSelfAttention, ("raise ValueError", "raise AssertionError")),
            "`assert` states what cannot happen and disappears under `python -O`. For a bad argument raise a ValueError.",
        ),
        Mistake(
            "wrote an error message without the value",
            edited(MultiHeadSelfAttention, ("dim {dim} is not divisible by num_heads {num_heads}", "dim is not divisible by num_heads")),
            'Your ValueError does not give the values. "dim 10 is not divisible by num_heads 3" tells at once what to change.',
        ),
    ),
)  # fmt: skip

ASSIGNMENT = Assignment(
    name="attention",
    title="Self-attention",
    chapter="04_attention",
    exercises=(STABLE_SOFTMAX, ATTENTION, SPLIT_HEADS, MERGE_HEADS, MULTI_HEAD, MODULE),
)
