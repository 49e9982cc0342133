import itertools
import math

import pytest
import torch

from ghn_pyg import ParamSpec
from ghn_pyg.models.class_tokens import draw_class_tokens
from ghn_pyg.models.fill_parameter import fill_


def numbered(*shape):
    return torch.arange(1.0, 1 + math.prod(shape)).view(shape)


def filled(spec, block, seed=None):
    out = torch.full(spec.shape, torch.nan)
    before = block.clone()
    assert fill_(out, spec, block, seed) is out
    assert torch.equal(block, before)
    assert out.isfinite().all()
    return out


@pytest.mark.parametrize("role", ["gain", "bias"])
def test_vectors(role):
    block = numbered(3)
    assert filled(ParamSpec("v", (7,), role), block).tolist() == [1, 2, 3, 1, 2, 3, 1]
    assert filled(ParamSpec("v", (2,), role), block).tolist() == [1, 2]


@pytest.mark.parametrize("role", ["gain", "bias"])
def test_gains_of_norms_over_maps(role):
    """One number for each channel, at every place of the map."""
    out = filled(ParamSpec("v", (5, 2, 3), role), numbered(3))
    assert out.flatten(1).tolist() == [[1] * 6, [2] * 6, [3] * 6, [1] * 6, [2] * 6]
    assert filled(ParamSpec("v", (2, 3), role), numbered(3)).tolist() == [[1] * 3, [2] * 3]
    assert filled(ParamSpec("v", (), role), numbered(3)).item() == 1


def test_linear_layers():
    block = numbered(2, 3, 1, 1)
    rows = [[1, 2, 3, 1], [4, 5, 6, 4], [1, 2, 3, 1]]
    assert filled(ParamSpec("w", (3, 4), "weight"), block).tolist() == rows
    turned = filled(ParamSpec("w", (4, 3), "weight", "in_out"), block)
    assert turned.T.tolist() == rows
    assert filled(ParamSpec("w", (5,), "weight"), numbered(2, 1, 1, 1)).tolist() == [1, 2, 1, 2, 1]


KINDS = {
    "linear": ((11, 13), (3, 5, 1, 1)),
    "conv1d": ((11, 13, 2), (3, 5, 2, 1)),
    "conv2d": ((11, 13, 2, 3), (3, 5, 2, 3)),
    "conv3d": ((11, 13, 7, 2, 3), (3, 5, 2, 3)),
    "depthwise": ((11, 1, 2, 3), (3, 1, 2, 3)),
    "few": ((2, 3, 2, 3), (2, 3, 2, 3)),
}


@pytest.mark.parametrize("layout", ["out_in", "in_out"])
@pytest.mark.parametrize(("shape", "block"), KINDS.values(), ids=KINDS)
def test_weights(shape, block, layout):
    """``w[a, b, …] = block[a mod o, b mod i, …]``, all planes of a volume alike."""
    stored = shape if layout == "out_in" else (shape[1], shape[0], *shape[2:])
    values = numbered(*block)
    out = filled(ParamSpec("w", stored, "weight", layout), values)
    for index in itertools.product(*(range(size) for size in shape)):
        a, b, *rest = index
        row, column = {2: (0, 0), 3: (rest[0], 0) if rest else (0, 0)}.get(len(shape), tuple(rest[-2:]))
        expected = values[a % block[0], b % block[1], row, column]
        assert out[index if layout == "out_in" else (b, a, *rest)] == expected


JOINED = {
    "ioo": ((5, 2, 7), lambda i, o, p: (7 * o + p, i)),
    "ooi": ((2, 7, 5), lambda o, p, i: (7 * o + p, i)),
    "iio": ((2, 5, 7), lambda i, j, o: (o, 5 * i + j)),
    "osi": ((7, 2, 5), lambda o, s, i: (o, i)),
    "oios": ((2, 5, 7, 3), lambda o, i, p, s: (7 * o + p, i)),
}


@pytest.mark.parametrize("axes", JOINED)
def test_weights_whose_dimensions_are_joined(axes):
    """``w[…] = block[a mod 3, b mod 2]`` where the dimensions of the output count to a, those of the input to b."""
    shape, joined = JOINED[axes]
    block = numbered(3, 2, 1, 1)
    out = filled(ParamSpec("w", shape, "weight", axes=axes), block)
    for index in itertools.product(*map(range, shape)):
        a, b = joined(*index)
        assert out[index] == block[a % 3, b % 2, 0, 0]


def test_biases_of_several_dimensions():
    assert filled(ParamSpec("b", (2, 3), "bias", axes="oo"), numbered(5)).tolist() == [[1, 2, 3], [4, 5, 1]]
    assert filled(ParamSpec("b", (2, 3), "bias", stacked=1), numbered(2)).tolist() == [[1, 2, 1], [1, 2, 1]]


def test_grouped_transposed_convolutions():
    """(in, out / groups, …): a group's outputs start over, and its inputs go on."""
    spec = ParamSpec("w", (6, 5, 1, 2), "weight", "in_out", groups=2)
    assert spec.node_shape() == (10, 3, 1, 2)
    block = numbered(10, 3, 1, 2)
    out = filled(spec, block)
    for into, outof in itertools.product(range(6), range(5)):
        assert torch.equal(out[into, outof], block[outof, into % 3])


def test_parameters_of_another_precision_and_memory_order():
    out = torch.empty(4, 3, 2, 2, dtype=torch.float16).contiguous(memory_format=torch.channels_last)
    fill_(out, ParamSpec("w", (4, 3, 2, 2), "weight"), numbered(3, 2, 2, 2) / 3)
    expected = filled(ParamSpec("w", (4, 3, 2, 2), "weight"), numbered(3, 2, 2, 2) / 3)
    assert torch.equal(out, expected.half())


# --- position embeddings ---------------------------------------------------------------------------------------------


def test_positions():
    """Token t has the numbers of position t of the flattened map, tiled along the channels and the tokens."""
    block = numbered(1, 3, 2, 2)
    rows = [[1, 5, 9, 1, 5], [2, 6, 10, 2, 6], [3, 7, 11, 3, 7], [4, 8, 12, 4, 8]]
    assert filled(ParamSpec("p", (1, 4, 5), "position"), block)[0].tolist() == rows
    assert filled(ParamSpec("p", (4, 5), "position"), block).tolist() == rows
    assert filled(ParamSpec("p", (4, 2), "position"), block).tolist() == [[1, 5], [2, 6], [3, 7], [4, 8]]
    assert filled(ParamSpec("p", (7, 5), "position"), block).tolist() == rows + rows[:3]


def test_positions_as_a_map():
    block = numbered(1, 3, 2, 5)
    out = filled(ParamSpec("p", (1, 7, 2, 5), "position"), block)
    for channel in range(7):
        assert torch.equal(out[0, channel], block[0, channel % 3])


@pytest.mark.parametrize("shape", [(1, 11, 5), (11, 5)])
def test_class_tokens_come_first(shape):
    spec = ParamSpec("p", shape, "position", extra_rows=2)
    rows = filled(spec, numbered(1, 7, 3, 3), seed=3).view(11, 5)
    assert torch.equal(rows[:2], draw_class_tokens("p", 2, 5, seed=3))
    assert rows[2].tolist() == [1, 10, 19, 28, 37]
    assert torch.equal(filled(spec, numbered(1, 7, 3, 3), seed=5).view(11, 5)[2:], rows[2:])


@pytest.mark.parametrize("role", ["gain", "bias"])
@pytest.mark.parametrize("shape", [(1, 7, 1, 1), (1, 1, 7), (1, 7)], ids=str)
def test_vectors_with_dimensions_of_size_1(role, shape):
    out = filled(ParamSpec("v", shape, role, axes="o" * len(shape)), numbered(3))
    assert out.flatten().tolist() == [1, 2, 3, 1, 2, 3, 1]


def test_a_vector_is_a_layer_with_one_output():
    spec = ParamSpec("v", (5,), "weight", axes="i")
    assert filled(spec, numbered(1, 3, 1, 1)).tolist() == [1, 2, 3, 1, 2]
    assert spec.node_shape() == (1, 5, 1, 1)
