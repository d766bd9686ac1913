"""Values survive packing; bytes that are no packed value are refused without harm."""

import json

import pytest
import safetensors.torch
import torch

from autograder.pack import Other, pack, unpack


@pytest.mark.parametrize(
    "value",
    [None, True, 3, 2.5, "text", [1, [2]], (1, "a"), {"a": {"b": None}}, torch.float16, float("inf")],
    ids=repr,
)
def test_plain_values_come_back_equal(value):
    assert unpack(pack(value)) == value


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool], ids=str
)
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3)], ids=str)
def test_tensors_come_back_equal(dtype, shape):
    tensor = torch.ones(shape).to(dtype)
    back = unpack(pack({"t": [tensor]}))["t"][0]
    assert back.dtype == dtype
    assert torch.equal(back, tensor)


def test_views_and_tracked_tensors_can_be_packed():
    tensor = torch.arange(6.0).reshape(2, 3).requires_grad_().T
    assert torch.equal(unpack(pack(tensor)), tensor.detach())


def test_a_tensor_without_data_keeps_shape_and_dtype():
    back = unpack(pack(torch.empty(2, 3, dtype=torch.float64, device="meta")))
    assert (back.is_meta, back.shape, back.dtype) == (True, (2, 3), torch.float64)


def test_of_other_values_only_the_type_comes_back():
    back = unpack(pack({"x": {1, 2}}))["x"]
    assert isinstance(back, Other)
    assert back.type == "builtins.set"


def test_the_bytes_are_a_safetensors_file():
    tensor = torch.arange(4.0)
    assert torch.equal(safetensors.torch.load(pack([tensor]))["0"], tensor)


def header(**entries):
    head = json.dumps({"__metadata__": {"tree": '{"$": "tensor", "name": "0"}'}, **entries}).encode()
    return len(head).to_bytes(8, "little") + head


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 8,
        b"\xff" * 100,
        header()[:-3],
        header(),
        header(**{"0": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}),
        header(**{"0": {"dtype": "F32", "shape": [-1, -1], "data_offsets": [0, 4]}}) + b"1234",
        header(**{"0": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}) + b"1234",
        header(**{"0": {"dtype": "PICKLE", "shape": [1], "data_offsets": [0, 4]}}) + b"1234",
        header(**{"0": 7}),
        (100_002).to_bytes(8, "little") + b"[" * 100_002,
    ],
    ids=[
        "empty",
        "huge header",
        "not JSON",
        "cut off",
        "no tensor",
        "huge tensor",
        "negative shape",
        "negative offset",
        "unknown dtype",
        "no entry",
        "deep nesting",
    ],
)
def test_bytes_that_are_no_packed_value_are_refused(data):
    with pytest.raises(ValueError, match="not packed data"):
        unpack(data)
