"""Checks for the assignment "The encoder block": `from checks import check`, then `check(layer_norm)`.

The check runs your answer on the inputs in `cases.safetensors`, which lies beside this file, and compares
what comes out with what is expected there. When your work is graded, the same checks run on other inputs.

Made by `autograder release` from its own sources; a change here is lost with the next release.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
import contextlib
from dataclasses import dataclass, field
import html
import json
import math
from pathlib import Path
import re
import textwrap
import torch
import traceback
from typing import Any


# ==== Values to bytes and back: one safetensors file whose metadata holds the tree of plain values


_CODES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


_HEADER_BYTES = 8_000_000  # JSON takes twenty times its length in memory


_DTYPES = {code: dtype for dtype, code in _CODES.items()}


_Tensor = tuple[str, tuple[int, ...], bytes]  # dtype code, shape, content


class Other:
    """Stands for a value that cannot be packed; `type` is its type's name, for example "numpy.ndarray"."""

    def __init__(self, type: str) -> None:
        self.type = type

    def __repr__(self) -> str:
        return f"<{self.type}>"


def pack(value: Any) -> bytes:
    """Return `value` as the bytes of a safetensors file.

    Tensors, None, bool, int, float, str, torch.dtype and lists, tuples and string-keyed dicts of them come
    back equal; equal tensors may come back as one. Of anything else only the name of its type comes back, as
    `Other`.
    """
    tensors: dict[_Tensor, str] = {}
    tree = json.dumps(_plain(value, tensors))
    header: dict[str, Any] = {"__metadata__": {"tree": tree}}
    at = 0
    for (code, shape, body), name in tensors.items():
        header[name] = {"dtype": code, "shape": shape, "data_offsets": [at, at + len(body)]}
        at += len(body)
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    return len(head).to_bytes(8, "little") + head + b"".join(body for _, _, body in tensors)


def _plain(value: Any, tensors: dict[_Tensor, str]) -> Any:
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, torch.Tensor) and value.dtype in _CODES and value.layout == torch.strided:
        if value.is_meta:
            return {"$": "meta", "shape": list(value.shape), "dtype": _CODES[value.dtype]}
        flat = value.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
        body = flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
        # Equal tensors are written once.
        name = tensors.setdefault((_CODES[value.dtype], tuple(value.shape), body), str(len(tensors)))
        return {"$": "tensor", "name": name}
    if isinstance(value, torch.dtype) and value in _CODES:
        return {"$": "dtype", "dtype": _CODES[value]}
    if type(value) is list:
        return [_plain(item, tensors) for item in value]
    if isinstance(value, tuple):
        return {"$": "tuple", "items": [_plain(item, tensors) for item in value]}
    if isinstance(value, dict) and all(type(key) is str for key in value):
        return {"$": "dict", "items": {key: _plain(item, tensors) for key, item in value.items()}}
    return {"$": "other", "type": f"{type(value).__module__}.{type(value).__qualname__}"[:80]}


def unpack(data: bytes) -> Any:
    """Return the value that `pack` wrote. Raises ValueError when `data` is not such a file."""
    try:
        length = int.from_bytes(data[:8], "little")
        if not 0 < length <= min(len(data) - 8, _HEADER_BYTES):
            raise ValueError(f"header of {length} bytes in a file of {len(data)}")
        header = json.loads(data[8 : 8 + length])
        tree = json.loads(header.pop("__metadata__")["tree"])
        body = bytearray(data[8 + length :])
        # Entries that share bytes would make a small file fill the memory.
        claimed = [entry["data_offsets"] for entry in header.values()]
        if sum(abs(end - start) for start, end in claimed) > len(body):
            raise ValueError("the entries are larger than the file")
        tensors = {name: _tensor(body, entry) for name, entry in header.items()}
        return _value(tree, tensors)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as problem:
        raise ValueError(f"not packed data: {problem}") from None


def _tensor(body: bytearray, entry: dict[str, Any]) -> torch.Tensor:
    dtype, shape, (start, end) = _DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
    if any(type(number) is not int or number < 0 for number in (*shape, start, end)):
        raise ValueError("a size is not a whole number")
    count = math.prod(shape)
    if end > len(body) or end - start != count * dtype.itemsize:
        raise ValueError(f"shape {shape} does not fill bytes {start} to {end}")
    if count == 0:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(body, dtype=dtype, count=count, offset=start).reshape(shape).clone()


def _value(node: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(node, list):
        return [_value(item, tensors) for item in node]
    if not isinstance(node, dict):
        return node
    kind = node["$"]
    if kind == "tensor":
        return tensors[node["name"]]
    if kind == "meta":
        return torch.empty(node["shape"], dtype=_DTYPES[node["dtype"]], device="meta")
    if kind == "dtype":
        return _DTYPES[node["dtype"]]
    if kind == "tuple":
        return tuple(_value(item, tensors) for item in node["items"])
    if kind == "dict":
        return {key: _value(item, tensors) for key, item in node["items"].items()}
    if kind == "other":
        return Other(str(node["type"])[:80])
    raise ValueError(f"unknown kind {kind!r}")


# ==== Probes: short functions that exercise an answer and return what came out of it


Inputs = dict[str, Any]


Outputs = dict[str, Any]


def mapped(change: Callable[[torch.Tensor], torch.Tensor], value: Any) -> Any:
    """Return `value` with `change` applied to every tensor in it, through lists, tuples and dicts."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, list | tuple):
        items = [mapped(change, item) for item in value]
        return tuple(items) if isinstance(value, tuple) else items  # not type(value): named tuples
    if isinstance(value, dict):
        return {key: mapped(change, item) for key, item in value.items()}
    return value


def arguments(inputs: Inputs) -> Inputs:
    """Return the inputs that the answer gets, each tensor a fresh copy."""
    return mapped(torch.clone, {name: value for name, value in inputs.items() if not name.startswith("_")})


def leaves(value: Any, name: str = "") -> dict[str, torch.Tensor]:
    """Return every tensor in `value` by its path, for example {"params.norm1.weight": tensor}."""
    if isinstance(value, torch.Tensor):
        return {name: value}
    pairs = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list | tuple)
        else ()
    )
    return {
        path: leaf
        for key, item in pairs
        for path, leaf in leaves(item, f"{name}.{key}" if name else str(key)).items()
    }


def pull_back(result: Any) -> None:
    """Backpropagate from every tensor in `result`, each element weighted differently."""
    total: Any = 0
    for tensor in leaves(result).values():
        if tensor.requires_grad:
            weights = torch.linspace(
                0.5, 1.5, max(tensor.numel(), 1), dtype=tensor.dtype, device=tensor.device
            )
            total = total + (tensor * weights[: tensor.numel()].reshape(tensor.shape)).sum()
    if isinstance(total, torch.Tensor):
        total.backward()


def track(tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor as a leaf that collects a gradient, when it is floating point."""
    return tensor.requires_grad_() if tensor.is_floating_point() else tensor


def value(answer: Callable[..., Any], inputs: Inputs) -> Outputs:
    """The result, with arguments passed by name."""
    return {"the result": answer(**arguments(inputs))}


def gradients(answer: Callable[..., Any], inputs: Inputs) -> Outputs:
    """The gradient that reaches every floating-point input."""
    tracked = mapped(track, arguments(inputs))
    result = answer(**tracked)
    pull_back(result)
    grads = {
        f"the gradient to {name}": leaf.grad for name, leaf in leaves(tracked).items() if leaf.requires_grad
    }
    return {"the result": result, **grads}


def manners(answer: Callable[..., Any], inputs: Inputs) -> Outputs:
    """Arguments by position, inputs after the call, a first result that a second call must not change,

    and the result on torch's "meta" device: it has shapes and no data, so any other device mixed in shows.
    """
    given = arguments(inputs)
    first = answer(*given.values())
    after = {f"{name} after the call": leaf for name, leaf in leaves(given).items()}
    other = mapped(_others, arguments(inputs))
    second = answer(*other.values())
    elsewhere = _elsewhere(answer, arguments(inputs), {})
    return {
        "the result, arguments by position": first,
        **after,
        "the result of a second call": second,
        "the result on another device": elsewhere.get("the result", elsewhere),
    }


def _others(tensor: torch.Tensor) -> torch.Tensor:
    return 1 - tensor if tensor.is_floating_point() else tensor.clone()


def _to_meta(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to("meta")


def _elsewhere(answer: Callable[..., Any], given: Inputs, state: Inputs) -> Outputs:
    """Return the result for inputs (and a module's `state`) on torch's "meta" device.

    That device has shapes and no data, so any other device mixed in shows. Its first use costs torch seconds,
    so an answer that makes all its tensors from those it was given is not run there: its device is theirs.
    """
    with _Origins([given, state]) as origins:
        made = observe(lambda answer, given: {"the result": answer(*given.values())}, answer, given)
    if "raised" in made or origins.all_known:
        return mapped(_to_meta, made)
    answer = answer.to("meta") if isinstance(answer, torch.nn.Module) else answer
    given = mapped(_to_meta, given)
    return observe(lambda answer, given: {"the result": answer(*given.values())}, answer, given)


class _Origins(torch.overrides.TorchFunctionMode):
    """Notes whether every tensor is made from those `given`, and none is moved."""

    def __init__(self, given: Any) -> None:
        super().__init__()
        self.all_known = True
        self._known = {id(tensor): tensor for tensor in leaves(given).values()}

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        used, made = leaves([args, kwargs or {}]).values(), leaves([result]).values()
        moved = function.__name__ in ("cpu", "cuda", "to", "type", "numpy", "tolist")
        unknown = any(id(tensor) not in self._known for tensor in used) or (made and not used)
        self.all_known = self.all_known and not moved and not unknown
        self._known |= {id(tensor): tensor for tensor in made}
        return result


def built(answer: Callable[..., Any], inputs: Inputs) -> Any:
    """Construct the module and load `_state` into it, in the dtype of that state, in evaluation mode."""
    module = answer(**arguments(inputs))
    state = inputs.get("_state")
    if state is not None:
        module = module.to(next(iter(state.values())).dtype)
        module.load_state_dict(mapped(torch.clone, state))
    return module.eval()


def module_value(answer: Callable[..., Any], inputs: Inputs) -> Outputs:
    """The module's output with given parameters."""
    return {"the output": built(answer, inputs)(*mapped(torch.clone, inputs["_forward"]).values())}


def module_gradients(answer: Callable[..., Any], inputs: Inputs) -> Outputs:
    """The gradient that reaches the input and every parameter."""
    module = built(answer, inputs)
    tracked = mapped(lambda tensor: track(tensor.clone()), inputs["_forward"])
    result = module(*tracked.values())
    pull_back(result)
    grads = {
        f"the gradient to {name}": leaf.grad for name, leaf in leaves(tracked).items() if leaf.requires_grad
    }
    grads |= {f"the gradient to {name}": parameter.grad for name, parameter in module.named_parameters()}
    return {"the output": result, **grads}


def module_manners(answer: Callable[..., Any], inputs: Inputs) -> Outputs:
    """Input and parameters after the call, a first output after a second call, and another device."""
    module = built(answer, inputs)
    given = mapped(torch.clone, inputs["_forward"])
    first = module(*given.values())
    after = {f"{name} after the call": leaf for name, leaf in leaves(given).items()}
    state = {f"{name} after the call": leaf.clone() for name, leaf in module.state_dict().items()}
    second = module(*mapped(_others, inputs["_forward"]).values())
    there = dict(module.state_dict(keep_vars=True))
    elsewhere = _elsewhere(module, mapped(torch.clone, inputs["_forward"]), there)
    return {
        "the output": first,
        **after,
        **state,
        "the output of a second call": second,
        "the output on another device": elsewhere.get("the result", elsewhere),
    }


def module_start(answer: Callable[..., Any], inputs: Inputs) -> Outputs:
    """The parameters of a new module, and which of them are trainable."""
    module = answer(**arguments(inputs))
    trainable = {name: parameter.requires_grad for name, parameter in module.named_parameters()}
    return {"start": dict(module.state_dict()), "trainable": trainable}


def observe(probe: Callable[..., Outputs], answer: Callable[..., Any], inputs: Inputs) -> Outputs:
    """Run the probe, from a fixed random state. When the answer raises, the outputs are

    {"raised": {"type", "bases", "message"}}.
    """
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return mapped(torch.detach, probe(answer, inputs))
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        bases = [base.__name__ for base in type(error).__mro__]
        return {"raised": {"type": type(error).__name__, "bases": bases, "message": str(error)[:2000]}}


# ==== Judging: compares what a probe returned for an answer with what it returned for the reference


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


# ==== Chapter 5: layer normalisation, GELU, the MLP and the encoder block


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


# ==== Chapter 2: patch embedding, the [CLS] token and z_0


def has_parameters(yours: dict[str, Any], expected: dict[str, Any], inputs: dict[str, Any]) -> str | None:
    """Judge names, shapes and trainability of a new module's parameters."""
    if "raised" in yours:
        return f"your code stopped with {error_name(yours['raised'])}"
    for name, want in expected["start"].items():
        got = yours["start"].get(name)
        if not isinstance(got, torch.Tensor):
            return f"the state dict has no {name}"
        if got.shape != want.shape:
            return f"{name} has shape {shape(got)}, expected {shape(want)}"
        if yours["trainable"].get(name) is not True:
            return f"{name} is not a trainable parameter"
    extra = len(yours["start"]) - len(expected["start"])
    return f"the state dict has {extra} entries too many" if extra > 0 else None


# ==== The table that a check at home shows: HTML in notebooks, plain text in terminals


HOLDS, FAILS, TO_DO = "holds", "does not hold", "not checked yet"


SKIPPED = "not checked here: MPS has no float64"


SIGNS = {HOLDS: "✓", FAILS: "✗", SKIPPED: "–", TO_DO: "○"}


# Readable on white and on near-black; the sign alone says the same.
COLOURS = {HOLDS: "#1a8a3c", FAILS: "#d73a3a", SKIPPED: "inherit", TO_DO: "inherit"}


TABLE = "border-collapse:collapse;max-width:60em;margin:.5em 0"


CAPTION = "caption-side:top;text-align:left;color:inherit;font-size:1.1em"


CELL = "text-align:left;vertical-align:top;padding:.35em .8em;border-top:1px solid rgba(128,128,128,.4)"


@dataclass(frozen=True)
class Row:
    """One behaviour: its title, what it pays, and how it stands."""

    title: str
    points: float
    state: str


@dataclass(frozen=True)
class Report:
    """What a check found.

    `details` are pairs of label and text about the first row that does not hold, or about an answer that is
    not written yet. `picture` is a matplotlib Figure of the failing case.
    """

    exercise: str
    points: float
    max_points: float
    rows: list[Row]
    details: list[tuple[str, str]] = field(default_factory=list)
    picture: Any = None

    @property
    def passed(self) -> bool:
        """Whether no row fails and none is left to do."""
        return not self.details

    @property
    def headline(self) -> str:
        """The outcome in a few words."""
        return f"{self.exercise}: {self.points:g} of {points(self.max_points)}"

    @property
    def summary(self) -> str:
        """The outcome and what to do about it, in one line."""
        return f"{self.headline}. {self.details[0][1]}" if self.details else self.headline

    @property
    def _explained(self) -> Row | None:
        """The row that the details belong to; None where they are about the whole answer."""
        return next((row for row in self.rows if row.state == FAILS), None)

    def __repr__(self) -> str:
        details = [_wrapped(f"{label}: {text}") for label, text in self.details]
        lines = [self.headline, *([] if self._explained else details), "  Your answer ..."]
        for row in self.rows:
            note = f", {row.state}" if row.state == SKIPPED else ""
            lines.append(f"  {SIGNS[row.state]} {row.title} ({points(row.points)}{note})")
            lines += details if row is self._explained else []
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        told = "".join(f"<p><i>{html.escape(label)}:</i> {_marked(text)}</p>" for label, text in self.details)
        outcome = HOLDS if self.passed else FAILS if self._explained else TO_DO
        head = f"{_sign(outcome)} <b>{html.escape(self.headline)}</b>{'' if self._explained else told}"
        titles = ("", "Your answer …", "Points")
        rows = "<tr>" + "".join(f'<th scope="col" style="{CELL}">{title}</th>' for title in titles) + "</tr>"
        for row in self.rows:
            title = html.escape(row.title) + (f" <i>({row.state})</i>" if row.state == SKIPPED else "")
            what = f"<b>{title}</b>{told}" if row is self._explained else title
            cells = (
                f'<td style="{CELL}">{each}</td>' for each in (_sign(row.state), what, f"{row.points:g}")
            )
            rows += f"<tr>{''.join(cells)}</tr>"
        return f'<table style="{TABLE}"><caption style="{CAPTION}">{head}</caption>{rows}</table>'


def _sign(state: str) -> str:
    """Return the sign of a state as HTML, with words for screen readers."""
    colour = f"color:{COLOURS[state]};font-weight:bold"
    return f'<span role="img" aria-label="{state}" title="{state}" style="{colour}">{SIGNS[state]}</span>'


def _marked(text: str) -> str:
    """Return text as HTML, with `code` in backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))


def _wrapped(text: str) -> str:
    """Return text indented under its row, at most 100 characters wide."""
    return textwrap.fill(text, 100, initial_indent=" " * 6, subsequent_indent=" " * 8)


def points(number: float) -> str:
    """Return "1 point", "2 points", "0.5 points"."""
    return f"{number:g} point{'' if number == 1 else 's'}"


# ==== What surrounds a check at home: device, torch's global settings, notebook


_PRECISIONS: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)  # type: ignore[attr-defined]


@contextlib.contextmanager
def steady() -> Iterator[None]:
    """Run the body with gradients on, float32 as default and exact float32 products (no TF32).

    What the notebook has set, and its random state, come back afterwards.
    """
    dtype, precisions = torch.get_default_dtype(), [backend.fp32_precision for backend in _PRECISIONS]
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
        torch.set_default_dtype(torch.float32)
        for backend in _PRECISIONS:
            backend.fp32_precision = "ieee"
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)
            for backend, precision in zip(_PRECISIONS, precisions, strict=True):
                backend.fp32_precision = precision


def needs_float64(inputs: dict[str, Any]) -> bool:
    """Return whether a case computes in float64, which Apple's MPS does not have."""
    tensors = any(leaf.dtype == torch.float64 for leaf in leaves(inputs).values())
    return tensors or any(value is torch.float64 for value in inputs.values())


def moved(inputs: dict[str, Any], place: torch.device) -> dict[str, Any]:
    """Return the inputs with every tensor on a device."""
    return mapped(lambda tensor: tensor.to(place), inputs)


class FunctionCalls(torch.overrides.TorchFunctionMode):
    """Records the names of the torch functions that are called, for example {"softmax", "matmul"}."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(str(getattr(function, "__name__", function)))
        return function(*args, **(kwargs or {}))


class Unfinished(AssertionError):
    """An outcome in one line; a notebook shows that line and no traceback."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


def say_what_is_missing(exercises: Collection[str]) -> None:
    """In IPython, answer the use of an exercise that is not written, or not run, with one line."""
    try:
        from IPython import get_ipython
    except ImportError:
        return
    shell = get_ipython()
    if shell is None:
        return

    def handler(shell: Any, kind: type, error: BaseException, trace: Any, tb_offset: Any = None) -> None:
        missing = unwritten(error, exercises)
        if missing is None:
            shell.showtraceback((kind, error, trace), tb_offset=tb_offset)
        else:
            shell.showtraceback((Unfinished, Unfinished(missing), None))

    shell.set_custom_exc((NameError, NotImplementedError), handler)


def unwritten(error: BaseException, exercises: Collection[str]) -> str | None:
    """Return what to do about an error that an unsolved exercise caused, or None for any other error."""
    if isinstance(error, NameError) and error.name in exercises:
        return f"{error.name} is not defined yet: run the cell that defines it, then this one."
    trace = error.__traceback__
    while isinstance(error, NotImplementedError) and trace is not None:
        name = trace.tb_frame.f_code.co_qualname.split(".")[0]
        if name in exercises:
            return f"This cell needs {name}, which is not written yet: write it, run its cell, then this one."
        trace = trace.tb_next
    return None


# ==== The check at home


LIBRARIES = str(Path(torch.__file__).parents[1])


Tried = tuple[Outputs, str | None]


Device = str | torch.device | None


class CheckFailed(Unfinished):
    """Says in one line what does not hold."""


class Checks:
    """The checks of one assignment, called as `check(patchify)`.

    `data` is the content of `cases.safetensors`, `functions` the probes, judges and pictures that it names.
    """

    def __init__(self, data: dict[str, Any], functions: Sequence[Callable[..., Any]]) -> None:
        self.exercises: dict[str, dict[str, Any]] = data["exercises"]
        self._functions = {function.__name__: function for function in functions}
        say_what_is_missing(self.exercises.keys())

    def __call__(self, answer: Any, name: str | None = None, device: Device = None) -> None:
        """Show which behaviours hold for `answer`. Raises CheckFailed, an AssertionError, unless all do.

        `name` is the exercise's name where the answer has another one. `device` holds the inputs; it is
        torch's default device unless given.
        """
        report = self.report(answer, name, device)
        _show(report)
        if not report.passed:
            raise CheckFailed(report.summary)

    def report(self, answer: Any, name: str | None = None, device: Device = None) -> Report:
        """Return what a check of `answer` finds."""
        name = self._known(answer, name)
        exercise = self.exercises[name]
        place = torch.device(device) if device is not None else torch.get_default_device()
        skipped = {
            case["group"]
            for case in exercise["cases"]
            if place.type == "mps" and needs_float64(case["inputs"])
        }
        cases = [case for case in exercise["cases"] if case["group"] not in skipped]
        with steady():
            tried = [self._try(exercise, answer, case, place) for case in cases]
            shortcuts = self._shortcuts(exercise, answer, cases[0])
        wrong = {case["group"]: number for number, case in reversed([*enumerate(cases)]) if tried[number][1]}
        rows = [
            Row(group["title"], group["points"], FAILS if g in wrong else SKIPPED if g in skipped else HOLDS)
            for g, group in enumerate(exercise["groups"])
        ]
        to_do = self._to_do(name, tried[0][0], shortcuts)
        if to_do:
            rows = [Row(row.title, row.points, TO_DO) for row in rows]
            return Report(name, 0, exercise["points"], rows, [("To do", to_do)])
        earned = 0 if 0 in wrong else sum(row.points for row in rows if row.state == HOLDS)
        if not wrong:
            return Report(name, earned, exercise["points"], rows)
        number = wrong[min(wrong)]
        details = self._details(name, answer, cases, tried, number, place)
        picture = self._picture(exercise["picture"], cases[number], tried[number][0])
        return Report(name, earned, exercise["points"], rows, details, picture)

    def _known(self, answer: Any, name: str | None) -> str:
        if isinstance(answer, str):
            raise TypeError(f"answer is a text; give the function or class itself: check({answer})")
        wanted = name if name is not None else str(getattr(answer, "__name__", type(answer).__name__))
        if wanted not in self.exercises:
            known = ", ".join(self.exercises)
            raise ValueError(f'name {wanted!r} is not one of {known}; say which it is: check(answer, "name")')
        return wanted

    def _try(self, exercise: Any, answer: Any, case: dict[str, Any], place: torch.device) -> Tried:
        """Return the outputs for one case and what is wrong with them, or None."""
        probe = self._functions[case["probe"]]
        judge = self._functions[exercise["groups"][case["group"]]["judge"]]
        with place:
            outputs = observe(probe, answer, moved(case["inputs"], place))
        if outputs.get("raised", {}).get("type") == "KeyboardInterrupt":
            raise KeyboardInterrupt
        with torch.device("cpu"):
            yours = unpack(pack(outputs))
            problem = judge(yours, case["expected"], case["inputs"])
        here = (place.type, "meta")
        strays = [name for name, leaf in leaves(outputs).items() if leaf.device.type not in here]
        if problem is None and strays:
            problem = f"{strays[0]}: on the CPU, the inputs are on {place}"
        return yours, problem

    def _shortcuts(self, exercise: Any, answer: Any, case: dict[str, Any]) -> list[str]:
        """Return the functions that an answer calls though the exercise is about writing them."""
        if not exercise["forbidden"]:
            return []
        with FunctionCalls() as calls:
            observe(self._functions[case["probe"]], answer, case["inputs"])
        return sorted(calls.names & set(exercise["forbidden"]))

    @staticmethod
    def _to_do(name: str, first: Outputs, shortcuts: list[str]) -> str | None:
        """Return what has to be done before any behaviour counts, or None."""
        if "NotImplementedError" in first.get("raised", {}).get("bases", ()):
            return f"{name} is not written yet. Write it in the cell above, run that cell, then this one."
        return f"Your answer calls `{shortcuts[0]}`: write that yourself." if shortcuts else None

    def _details(
        self, name: str, answer: Any, cases: list[Any], tried: list[Tried], number: int, place: torch.device
    ) -> list[tuple[str, str]]:
        """Return what to tell about the first behaviour that does not hold, seen in case `number`."""
        exercise, case, (yours, problem) = self.exercises[name], cases[number], tried[number]
        details = [("Found", str(problem)), ("Called as", _call(name, case["inputs"]))]
        if "raised" in yours and "raised" not in case["expected"]:
            details.append(("Error", self._error(answer, case, place)))
        group = [each for each, other in enumerate(cases) if other["group"] == case["group"]]
        done = {each: [other["mistakes"].get(each) for other in cases] for each in exercise["hints"]}
        expected = [other["expected"] for other in cases]
        mistake = recognise([outputs for outputs, _ in tried], expected, group, done)
        if mistake is not None:
            details.append(("Hint", exercise["hints"][mistake]))
        return [*details, ("Read again in the book", exercise["groups"][case["group"]]["reread"])]

    def _error(self, answer: Any, case: dict[str, Any], place: torch.device) -> str:
        """Return the student's own error message, with the line of the student's code that raised it."""
        try:
            with steady(), place:
                self._functions[case["probe"]](answer, moved(case["inputs"], place))
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            frames = traceback.extract_tb(error.__traceback__)
            theirs = [
                frame for frame in frames if not frame.filename.startswith((str(Path(__file__)), LIBRARIES))
            ]
            return f"{text} (line {theirs[-1].lineno} of its cell: `{theirs[-1].line}`)" if theirs else text
        return "it does not come back when run again: does the answer keep something between calls?"

    def _picture(self, picture: str | None, case: dict[str, Any], yours: Outputs) -> Any:
        if picture is None or "raised" in yours or "raised" in case["expected"]:
            return None
        import matplotlib.pyplot as plt

        expected, given = (next(iter(made.values())) for made in (case["expected"], yours))
        figure = self._functions[picture](case["inputs"], expected, given)
        plt.close(figure)  # else the notebook shows it a second time
        return figure


def load(path: Path, functions: Sequence[Callable[..., Any]]) -> Checks:
    """Return the checks whose cases are in a file."""
    with torch.device("cpu"):
        return Checks(unpack(path.read_bytes()), functions)


def _call(name: str, inputs: dict[str, Any]) -> str:
    """Return the call in words: "patchify(images: float32 (2, 3, 8, 12), patch_size=4)"."""
    given = {key: value for key, value in inputs.items() if not key.startswith("_")}
    call = f"{name}({_list(given)})"
    return f"{call}, then forward({_list(inputs['_forward'])})" if "_forward" in inputs else call


def _list(arguments: dict[str, Any]) -> str:
    return ", ".join(f"{key}{_brief(value)}" for key, value in arguments.items())


def _brief(value: Any) -> str:
    """Return ": float32 (2, 3)" for a tensor, ": a dict of 3" for a dict of them, else "=" and the value."""
    if isinstance(value, torch.Tensor):
        return f": {name_of(value.dtype)} {shape(value)}"
    return f": a {type(value).__name__} of {len(value)}" if leaves(value) else f"={value!r}"


def _show(report: Report) -> None:
    """Show the table and its picture: rich in a notebook, plain text elsewhere."""
    try:
        from IPython import get_ipython
        from IPython.display import display
    except ImportError:
        get_ipython, display = (lambda: None), print
    display(report)
    if report.picture is not None and getattr(get_ipython(), "kernel", None) is not None:
        display(report.picture)


check = load(Path(__file__).with_name("cases.safetensors"), [value, same, gradients, manners, keeps_params, module_start, has_parameters, module_value, module_training, added, drops_right, module_gradients, module_manners, runs])
