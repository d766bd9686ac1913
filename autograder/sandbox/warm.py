"""Makes forks of the warm server cheap: a submission costs seven of them, and they are most of its price."""

import ctypes
import gc
import inspect
import types

import torch._compile

_HUGE = 2 << 20
_MADV_COLLAPSE = 25  # Linux 6.1


def leave_out_compiler() -> None:
    """Keep torch from importing its compiler.

    Optimizers and tracing modes import it on first use only to be left alone by it: four seconds and 90 MB,
    and there is no compiler in the sandbox to be left alone by. Where torch works differently this does nothing.
    """
    wrapper = torch._compile._disable_dynamo(lambda: None).__code__
    for function in gc.get_objects():
        if isinstance(function, types.FunctionType) and function.__code__ is wrapper:
            inner = inspect.getclosurevars(function).nonlocals["fn"]
            inner.__dynamo_disable = inner  # where the wrapper keeps its own result


def settle() -> None:
    """Arrange memory so that a fork copies little.

    Objects go where the garbage collector does not look: a collection in a child would touch, and so copy,
    every page of the server. Memory goes into 2 MB pages: a fork copies one entry for each, not five hundred.
    On Linux before 6.1 it stays as it is.
    """
    gc.collect()
    gc.freeze()
    libc = ctypes.CDLL(None)
    with open("/proc/self/maps") as file:
        areas = [line.split() for line in file]
    for area, access, *_, name in (area for area in areas if len(area) == 5 or area[-1] == "[heap]"):
        if access.startswith("rw") and name in ("0", "[heap]"):
            start, end = (int(address, 16) for address in area.split("-"))
            for page in range(-(-start // _HUGE) * _HUGE, end // _HUGE * _HUGE, _HUGE):
                libc.madvise(ctypes.c_void_p(page), ctypes.c_size_t(_HUGE), _MADV_COLLAPSE)
