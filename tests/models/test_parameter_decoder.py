import itertools
import math

import pytest
import torch
from torch import nn
from torch_geometric.data import Batch

from ghn_pyg import ParamSpec, from_module
from ghn_pyg.models import parameter_decoder
from ghn_pyg.models.fill_parameter import fill_
from ghn_pyg.models.parameter_decoder import NodeParameter, ParameterDecoder, fan_shape, node_parameters
from ghn_pyg.nn.decoders import ConvDecoder, Group, MLPDecoder, VectorDecoder
from tests.properties import assert_close, embeddings

D, C, S, K = 12, 7, 5, 11


def decoder(kind=ConvDecoder, weight_norm=True):
    torch.manual_seed(3)
    return ParameterDecoder(kind(D, C, S, K), VectorDecoder(D, C, K), weight_norm).double()


# --- parameters of a graph -------------------------------------------------------------------------------------------


def graphs():
    return [
        from_module(nn.Linear(5, 3), torch.rand(2, 5)),
        from_module(nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Conv2d(5, 2, 1, bias=False)),
                    torch.rand(2, 3, 7, 7)),
    ]  # fmt: skip


def listed(graph):
    return [
        (parameter.graph, parameter.node, parameter.spec.name, parameter.classifier)
        for parameter in node_parameters(graph)
    ]


def test_parameters_of_a_graph():
    first, second = graphs()
    assert listed(first) == [(0, 1, "weight", True), (0, 2, "bias", True)]
    assert listed(second) == [
        (0, 1, "0.weight", False), (0, 2, "0.bias", False), (0, 3, "1.weight", False), (0, 3, "1.bias", False),
        (0, 4, "2.weight", True),
    ]  # fmt: skip


def test_parameters_of_a_batch():
    first, second = graphs()
    assert listed(Batch.from_data_list([second, first, second])) == [
        *listed(second),
        (1, 6, "weight", True), (1, 7, "bias", True),
        (2, 9, "0.weight", False), (2, 10, "0.bias", False), (2, 11, "1.weight", False), (2, 11, "1.bias", False),
        (2, 12, "2.weight", True),
    ]  # fmt: skip
    assert listed(Batch.from_data_list([first])) == listed(first)


# --- fan-in ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (ParamSpec("w", (11, 13), "weight"), (11, 13)),
        (ParamSpec("w", (11, 13), "weight", "in_out"), (13, 11)),
        (ParamSpec("w", (11, 13, 3, 5), "weight"), (11, 13, 3, 5)),
        (ParamSpec("w", (11, 13, 3, 5), "weight", "in_out"), (13, 11, 3, 5)),
        (ParamSpec("w", (6, 5, 3), "weight", "in_out", groups=2), (10, 3, 3)),
        (ParamSpec("w", (6, 1, 3, 3), "weight", "in_out", groups=6), (6, 1, 3, 3)),
        (ParamSpec("w", (2, 11, 13), "weight", "in_out", stacked=1), (13, 11)),
        (ParamSpec("w", (11, 3, 5), "weight", axes="ioo"), (15, 11)),
        (ParamSpec("w", (11, 3, 5), "weight", axes="osi"), (11, 5)),
    ],
)
def test_fan_shapes(spec, expected):
    assert fan_shape(spec) == expected


# --- all parameters of a network -------------------------------------------------------------------------------------


def reference(model, x, parameter):
    """One parameter by index arithmetic; by hand but for the blocks of weights."""
    spec = parameter.spec
    row = x[parameter.node : parameter.node + 1]
    if spec.role in ("gain", "bias"):
        size = spec.shape[0]
        vectors = model.vector(row)[0]
        if parameter.classifier and spec.role == "bias":
            vector = model.vector.classify(row)[0]
        else:
            vector = vectors[0 if spec.role == "gain" else 1]
        values = torch.stack([vector[at % len(vector)] for at in range(size)])
        if not model.weight_norm:
            return values
        return 2 * torch.sigmoid(0.5 * values) if spec.role == "gain" else torch.tanh(0.2 * values)
    out, into, *kernel = spec.node_shape()
    whole = None if parameter.classifier else C
    (block,) = model.weight(x, [Group([parameter.node], tuple(kernel), whole, C)])[0]
    if whole:
        block = block[:out, :into]
    if spec.role == "position":
        if len(spec.shape) == 4:
            return torch.stack([block[0, at % block.size(1)] for at in range(spec.shape[1])])[None]
        tokens = block[0].flatten(1).T
        table = torch.stack([tokens[:, at % tokens.size(1)] for at in range(spec.shape[-1])], dim=1)
        return table.view(spec.shape[:-2] + table.shape)
    values = torch.empty(spec.shape, dtype=x.dtype)
    for first, second in itertools.product(range(spec.shape[0]), range(spec.shape[1])):
        outof, other = (first, second) if spec.layout == "out_in" else (second, first)
        kernel_values = block[outof % block.size(0), other % block[:, :into].size(1)]
        values[first, second] = {2: kernel_values[0, 0], 3: kernel_values[:, 0]}.get(len(spec.shape), kernel_values)
    if not model.weight_norm:
        return values
    depthwise = len(spec.shape) == 4 and (into == 1 or kernel[0] < kernel[1])
    fan_in = into * math.prod(spec.shape[2:])
    return values * math.sqrt((1 if depthwise else 2) / fan_in)


SPECS = [
    ParamSpec("conv", (13, 3, 3, 3), "weight"),
    ParamSpec("wide", (5, 17, 1, 3), "weight"),
    ParamSpec("tall", (5, 17, 3, 1), "weight"),
    ParamSpec("depthwise", (13, 1, 3, 3), "weight"),
    ParamSpec("large", (2, 3, 7, 11), "weight"),
    ParamSpec("linear", (17, 19), "weight"),
    ParamSpec("turned", (17, 19), "weight", "in_out"),
    ParamSpec("sequence", (3, 13, 5), "weight"),
    ParamSpec("volume", (3, 11, 2, 3, 3), "weight"),
    ParamSpec("transposed", (3, 13, 3, 3), "weight", "in_out"),
    ParamSpec("grouped", (22, 13, 3, 3), "weight", "in_out", groups=2),
    ParamSpec("one", (1, 1, 1, 1), "weight"),
    ParamSpec("gain", (13,), "gain"),
    ParamSpec("bias", (3,), "bias"),
    ParamSpec("tokens", (1, 9, 13), "position"),
    ParamSpec("table", (4, 5), "position"),
    ParamSpec("map", (1, 13, 3, 7), "position"),
]
PARAMETERS = [NodeParameter(0, at % 7, spec, False) for at, spec in enumerate(SPECS)] + [
    NodeParameter(0, 4, ParamSpec("head", (13, 19), "weight"), True),
    NodeParameter(0, 5, ParamSpec("head bias", (13,), "bias"), True),
    NodeParameter(1, 6, ParamSpec("small head", (2, 3), "weight"), True),
    NodeParameter(1, 2, ParamSpec("small head bias", (2,), "bias"), True),
    NodeParameter(2, 1, ParamSpec("convolutional head", (13, 5, 1, 1), "weight"), True),
]


def decoded(model, x, parameters):
    blocks = {}
    for parameter, block in model(x, parameters):
        assert parameter not in blocks
        out = torch.empty(parameter.spec.shape, dtype=torch.float64)
        blocks[parameter] = fill_(out, parameter.spec, block)
    return blocks


@pytest.mark.parametrize("weight_norm", [True, False])
@pytest.mark.parametrize("kind", [ConvDecoder, MLPDecoder])
def test_index_arithmetic_agrees(kind, weight_norm):
    model, x = decoder(kind, weight_norm), embeddings(D)
    result = decoded(model, x, PARAMETERS)
    assert set(result) == set(PARAMETERS)
    for parameter, values in result.items():
        assert_close(values, reference(model, x, parameter).view(parameter.spec.shape))


def test_the_order_and_the_company_do_not_matter():
    model, x = decoder(), embeddings(D)
    result = decoded(model, x, PARAMETERS)
    assert_close(list(map(decoded(model, x, PARAMETERS[::-1]).get, PARAMETERS)), list(map(result.get, PARAMETERS)))
    for parameter in PARAMETERS:
        assert_close(decoded(model, x, iter([parameter]))[parameter], result[parameter])
    assert decoded(model, x, []) == {}


@pytest.mark.parametrize(("chunk", "sizes"), [(0, [1] * 5), (27, [2, 2, 1]), (28, [3, 2]), (1000, [5])])
def test_small_chunks_give_the_same(chunk, sizes, monkeypatch):
    model, x = decoder(), embeddings(D)
    expected = decoded(model, x, PARAMETERS)
    monkeypatch.setattr(parameter_decoder, "_CHUNK", chunk)
    result = decoded(model, x, PARAMETERS)
    assert_close(list(map(result.get, PARAMETERS)), list(map(expected.get, PARAMETERS)))
    same = [NodeParameter(0, 0, ParamSpec(f"w{at}", (13, 2), "weight"), False) for at in range(5)]  # 14 numbers each
    assert [len(part) for part in model.chunks(same)] == sizes


@pytest.mark.parametrize(
    ("role", "classifier", "message"),
    [
        ("gian", False, "'w' the role 'gian', expected weight or gain or bias or position"),
        ("gain", True, "'w' the role 'gain' in the classification layer, expected weight or bias"),
    ],
)
def test_roles_that_are_not_decoded(role, classifier, message):
    bad = NodeParameter(0, 0, ParamSpec("w", (5,), role), classifier)
    with pytest.raises(ValueError, match=f"the graph gives {message}"):
        next(decoder()(embeddings(D), [*PARAMETERS, bad]))
