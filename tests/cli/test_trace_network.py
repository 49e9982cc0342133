import pytest
import torch
from torch_geometric.data import Data

from ghn_pyg.cli.trace_network import make_inputs, parse_inputs


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("3", ((3,), "float32", "")),
        ("1x3x32x32", ((1, 3, 32, 32), "float32", "")),
        ("1x16:long", ((1, 16), "int64", "")),
        ("input_ids=1x16:int32", ((1, 16), "int32", "input_ids")),
        ("mask=2x5:bool", ((2, 5), "bool", "mask")),
    ],
)
def test_shapes_are_parsed(text, parts):
    assert parse_inputs([text]) == [parts]


@pytest.mark.parametrize("text", ["", "1x", "x3", "3x-1", "1,3", "1x3:", "=1x3", "ids:1x3", "1x3:longer"])
def test_other_texts_are_refused(text):
    with pytest.raises(ValueError, match=r"expected (a shape|one of the types float, half), .* got "):
        parse_inputs([text])


@pytest.mark.parametrize("texts", [["a=1", "a=2"], ["a=1", "2"]])
def test_keywords_must_differ(texts):
    with pytest.raises(ValueError, match="expected a different keyword for each input"):
        parse_inputs(texts)
    assert len(parse_inputs(["1", "1"])) == 2


def test_example_inputs():
    image, ids, mask = make_inputs(parse_inputs(["1x3x5x7", "1x11:long", "1x2:bool"]))
    assert (image.shape, image.dtype, image.device.type) == ((1, 3, 5, 7), torch.float32, "meta")
    assert (ids.dtype, ids.tolist()) == (torch.int64, [[0] * 11])
    assert (mask.dtype, mask.tolist()) == (torch.bool, [[True, True]])
    named = make_inputs(parse_inputs(["b=2:double", "a=3:bfloat16"]))
    assert [(name, tuple(tensor.shape), tensor.dtype) for name, tensor in named.items()] == [
        ("b", (2,), torch.float64), ("a", (3,), torch.bfloat16),
    ]  # fmt: skip


def test_attributes_of_an_argument_and_sparse_matrices():
    inputs = make_inputs(parse_inputs(["data.x=5x3", "data.edge_index=2x7:long", "mask=5:bool", "adj=5x5:sparse"]))
    assert list(inputs) == ["data", "mask", "adj"]
    assert isinstance(inputs["data"], Data)
    assert (inputs["data"].x.shape, inputs["data"].edge_index.tolist()) == ((5, 3), [[0] * 7] * 2)
    assert (inputs["adj"].layout, inputs["adj"].shape) == (torch.sparse_coo, (5, 5))
    assert make_inputs(parse_inputs(["3x2:sparse"]))[0].is_sparse


def test_an_argument_and_its_attributes_exclude_each_other():
    with pytest.raises(ValueError, match="expected an argument or its attributes, got both for data"):
        parse_inputs(["data.x=5x3", "data=2x7"])
