"""Values to bytes and back: one safetensors file whose metadata holds the tree of plain values.

Used between grader and sandbox and for `cases.safetensors`. Nothing is executed on reading, every size is
checked before memory is touched. This file needs torch only: it is bound into the sandbox and copied into
`checks.py`.
"""

import json
import math
from typing import Any

import torch

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
