"""Judging: compares what a probe returned for an answer with what it returned for the reference.

The messages give shapes, types and sizes of errors, never values: they may be about hidden inputs.
This file needs torch only: it is copied into `checks.py`, so that home and grader judge alike.
"""

import re
from collections.abc import Sequence
from typing import Any

import torch

# Largest accepted error, as a share of the largest value expected (at least of 1).
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 3e-2}
# An exception of these kinds says that code is unfinished or broken, not that it refuses bad input.
NOT_A_REFUSAL = {
    "NotImplementedError", "NameError", "ImportError", "SyntaxError", "SystemExit", "KeyboardInterrupt",
}  # fmt: skip
# Names that a student cannot have made up to carry a hidden value out.
KNOWN_TYPES = {
    "numpy.ndarray",
    "numpy.float64",
    "numpy.int64",
    "builtins.function",
    "builtins.complex",
    "builtins.set",
}
KNOWN_ERRORS = {
    name
    for name, kind in vars(__import__("builtins")).items()
    if isinstance(kind, type) and issubclass(kind, BaseException)
}


def same(yours: dict[str, Any], expected: dict[str, Any], inputs: dict[str, Any]) -> str | None:
    """Return what differs first, in words, or None when `yours` matches what the reference gave.

    Where the reference raises, the answer must raise too. A ValueError of the reference asks for a ValueError
    whose message names one of `inputs["_names"]` and one of `inputs["_values"]`; with `inputs["_any_error"]`
    any exception that refuses the input is right.
    """
    if "raised" in expected:
        return _refusal(yours, expected, inputs)
    if "raised" in yours:
        return f"your code stopped with {error_name(yours['raised'])}"
    for name, want in expected.items():
        problem = differ(yours.get(name), want)
        if problem:
            return f"{name}: {problem}"
    return None


def error_name(raised: dict[str, Any]) -> str:
    """Return the name of the exception when Python or torch defines it, else the one it derives from."""
    return next((name for name in raised["bases"] if name in KNOWN_ERRORS), "an error")


def _refusal(yours: dict[str, Any], expected: dict[str, Any], inputs: dict[str, Any]) -> str | None:
    because = inputs.get("_because", "bad arguments")
    wanted = "an error" if inputs.get("_any_error") else expected["raised"]["type"]
    if "raised" not in yours:
        return f"{wanted} expected for {because}, nothing was raised"
    bases, message = yours["raised"]["bases"], str(yours["raised"]["message"])
    if inputs.get("_any_error"):
        broken = NOT_A_REFUSAL & set(bases)
        return f"{error_name(yours['raised'])} instead of an error about the input" if broken else None
    if wanted not in bases:
        return f"{wanted} expected for {because}, yours is {error_name(yours['raised'])}"
    if not _mentions(message, inputs.get("_names", ())):
        return f"the message of the {wanted} does not name the argument"
    if not _mentions(message, inputs.get("_values", ())):
        return f"the message of the {wanted} does not give the value"
    return None


def _mentions(message: str, words: Sequence[Any]) -> bool:
    """Return whether the message has one of the words; "Patch size" counts for patch_size, 8x10 for 10."""
    text = message.lower().replace(" ", "_")

    def found(word: str) -> bool:
        edge = r"[\d]" if word.lstrip("-")[:1].isdigit() else r"[a-z]"
        return re.search(rf"(?<!{edge}){re.escape(word)}(?!{edge})", text) is not None

    return not words or any(found(str(word).lower().replace(" ", "_")) for word in words)


def differ(got: Any, want: Any) -> str | None:
    """Return how `got` differs from `want`, or None when they agree."""
    if isinstance(want, torch.Tensor) and want.is_meta and isinstance(got, dict):
        return _mixed_devices(got)
    if isinstance(want, torch.Tensor):
        return _tensors_differ(got, want)
    if want is None:
        zero = (
            isinstance(got, torch.Tensor) and not got.is_meta and not got.any()
        )  # no gradient, or one of zeros
        return None if got is None or zero else f"None expected, yours is {describe(got)}"
    if isinstance(want, dict):
        return _dicts_differ(got, want)
    if isinstance(want, list | tuple):
        return _sequences_differ(got, want)
    if type(want) is float and type(got) in (int, float):
        close = abs(got - want) <= 1e-9 * max(1.0, abs(want)) or (got != got and want != want)
        return None if close else f"too {'large' if got > want else 'small'}"
    if type(got) is not type(want):
        return f"{describe(want)} expected, yours is {describe(got)}"
    if got == want:
        return None
    return f"too {'large' if got > want else 'small'}" if type(want) is int else "another value expected"


def _tensors_differ(got: Any, want: torch.Tensor) -> str | None:
    if not isinstance(got, torch.Tensor):
        if got is None and not want.is_meta and not want.any():
            return None
        return "missing (None)" if got is None else f"a tensor expected, yours is {describe(got)}"
    if got.shape != want.shape:
        return f"shape {shape(want)} expected, yours is {shape(got)}"
    if got.is_meta != want.is_meta:
        return "a tensor is made on the CPU, whatever the input's device is"
    if got.dtype != want.dtype:
        return f"{name_of(want.dtype)} expected, yours is {name_of(got.dtype)}"
    if want.is_meta or want.numel() == 0:
        return None
    if not want.is_floating_point():
        wrong = got != want
        return f"{_share(wrong)} of the values differ" if wrong.any() else None
    if got.isnan().any() and not want.isnan().any():
        return f"{_share(got.isnan())} of the values are NaN"
    error = torch.where(got == want, 0.0, (got.double() - want.double()).abs()).nan_to_num(float("inf"))
    error[got.isnan() & want.isnan()] = 0.0
    size = max(1.0, float(want[want.isfinite()].abs().max()) if want.isfinite().any() else 1.0)
    wrong = error > TOLERANCE[want.dtype] * size
    if not wrong.any():
        return None
    largest = float(error.max()) / size
    return f"right shape, but {_share(wrong)} of the values differ, by up to {largest:.1g} of the largest"


def _mixed_devices(got: dict[str, Any]) -> str | None:
    """Judge an error on the "meta" device: code that looks at values cannot run there, which is no fault."""
    message = str(got.get("raised", {}).get("message"))
    mixed = "is not on the expected device" in message or "Cannot copy out of meta" in message
    return "a tensor is made on the CPU, whatever the input's device is" if mixed else None


def _share(mask: torch.Tensor) -> str:
    percent = 100 * float(mask.double().mean())
    return f"{percent:.0f} %" if percent >= 1 else "less than 1 %"


def _dicts_differ(got: Any, want: dict[str, Any]) -> str | None:
    if not isinstance(got, dict):
        return f"a dict expected, yours is {describe(got)}"
    missing = [key for key in want if key not in got]
    if missing:
        return f"{missing[0]!r} is missing"
    if len(got) > len(want):
        return f"{len(got) - len(want)} entries too many"
    for key in want:
        problem = differ(got[key], want[key])
        if problem:
            return f"{key}: {problem}"
    return None


def _sequences_differ(got: Any, want: Sequence[Any]) -> str | None:
    if not isinstance(got, list | tuple):
        return f"a {type(want).__name__} expected, yours is {describe(got)}"
    if len(got) != len(want):
        return f"{len(want)} entries expected, yours has {len(got)}"
    for index, (mine, theirs) in enumerate(zip(got, want, strict=True)):
        problem = differ(mine, theirs)
        if problem:
            return f"entry {index}: {problem}"
    return None


def describe(value: Any) -> str:
    """Return a value's kind in words, without the value: "a float32 tensor of shape (2, 3)", "an int"."""
    if isinstance(value, torch.Tensor):
        return f"a {name_of(value.dtype)} tensor of shape {shape(value)}"
    if value is None:
        return "None"
    packed = getattr(value, "type", None)  # a pack.Other
    if isinstance(packed, str):
        return packed if packed in KNOWN_TYPES else "something else"
    name = type(value).__name__
    return f"an {name}" if name == "int" else f"a {name}"


def shape(tensor: torch.Tensor) -> str:
    """Return a shape as text; one too long to be a mistake is not spelled out."""
    return str(tuple(tensor.shape)) if tensor.dim() <= 8 else f"of {tensor.dim()} dimensions"


def name_of(dtype: torch.dtype) -> str:
    """Return "float32" for torch.float32."""
    return str(dtype).removeprefix("torch.")


def agrees(yours: dict[str, Any], mistake: dict[str, Any]) -> bool:
    """Return whether an answer did what a known mistake does: the same outputs, or the same kind of error."""
    if "raised" in yours or "raised" in mistake:
        return (
            "raised" in yours
            and "raised" in mistake
            and error_name(yours["raised"]) == error_name(mistake["raised"])
        )
    return yours.keys() == mistake.keys() and all(
        differ(yours[name], mistake[name]) is None for name in mistake
    )


def recognise(
    yours: list[dict[str, Any]],
    expected: list[dict[str, Any]],
    failing: list[int],
    mistakes: dict[str, list[dict[str, Any] | None]],
) -> str | None:
    """Return the name of the known mistake that explains an answer, or None.

    `yours`, `expected` and each mistake's list hold outputs by case number; None in a mistake's list means
    "as expected". `failing` are the cases of the first group that does not hold: a mistake must differ from
    the reference there, and the answer must do what the mistake does in each of them. Of several, the one
    that agrees in most cases is named, and of those the first.
    """

    def did(name: str, case: int) -> bool:
        wrong = mistakes[name][case]
        if (
            wrong is None and "raised" in expected[case]
        ):  # the mistake refuses the input too, with whatever error
            return "raised" in yours[case]
        return agrees(yours[case], wrong or expected[case])

    best, most = None, 0
    for name, outputs in mistakes.items():
        explains = all(did(name, case) for case in failing) and any(
            outputs[case] is not None for case in failing
        )
        score = sum(did(name, case) for case in range(len(expected))) if explains else 0
        if score > most:
            best, most = name, score
    return best
