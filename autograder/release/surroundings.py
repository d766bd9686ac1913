"""What surrounds a check at home: device, torch's global settings, notebook. Copied into `checks.py`."""

import contextlib
from collections.abc import Collection, Iterator
from typing import Any

import torch

from autograder.probes import leaves, mapped

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
