"""Probes: short functions that exercise an answer and return what came out of it.

A probe gets the answer (a function or class) and the inputs of one case, and returns named tensors and plain
values. It judges nothing: the same probe runs on the reference, on the student's code (in the sandbox) and on
every known mistake, and `autograder/judge.py` compares what came out, where student code cannot reach.
Inputs whose name starts with `_` are for the probe; all others are arguments of the answer.

This file needs torch only: it is bound into the sandbox and copied into `checks.py`.
"""

from collections.abc import Callable
from typing import Any

import torch

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


# Functions


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


# Modules: `_state` is loaded through the state dict, `_forward` holds the arguments of forward, by position.


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


# Running


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


class _Calls(torch.overrides.TorchFunctionMode):
    """Records the names of the torch functions that are called, for example {"softmax", "matmul"}."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(str(getattr(function, "__name__", function)))
        return function(*args, **(kwargs or {}))


class _Operators(torch.utils._python_dispatch.TorchDispatchMode):
    """Records the operators that torch runs, whatever name they were called by, for example {"_softmax"}."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


def called(answer: Callable[..., Any], probe: Callable[..., Outputs], inputs: Inputs) -> list[str]:
    """Return the names of the torch functions and operators that the answer calls, sorted."""
    with _Calls() as calls, _Operators() as operators:
        observe(probe, answer, inputs)
    return sorted(calls.names | operators.names)


def run(answer: Callable[..., Any], request: dict[str, Any]) -> dict[str, Any]:
    """Answer a request {"sources", "cases": [{"probe", "inputs"}], "trace"} with {"outputs", "called"}.

    `sources` is the text of the probes that are not in this file.
    """
    scope = dict(globals())
    exec(request["sources"], scope)
    cases = [(scope[case["probe"]], case["inputs"]) for case in request["cases"]]
    traced = called(answer, *cases[0]) if request["trace"] else []
    return {"outputs": [observe(probe, answer, inputs) for probe, inputs in cases], "called": traced}
