import itertools
import math

import pytest
import torch
from ghn_pyg.models.decoding import ParameterDecoder, Target, fan_shape, fill_, targets
from torch import nn
from torch_geometric.data import Batch

from ghn_pyg import GHN, GHNConfig, ParamSpec, from_module
from ghn_pyg.models import decoding
from ghn_pyg.nn.decoders import ConvDecoder, Group, MLPDecoder, VectorDecoder
from tests.models.blocks import filled, numbered
from tests.properties import assert_close, embeddings
from tests.tracing.helpers import network, weight

D, C, S, K = 12, 7, 5, 11


def decoder(kind=ConvDecoder, weight_norm=True):
    torch.manual_seed(3)
    return ParameterDecoder(kind(D, C, S, K), VectorDecoder(D, C, K), weight_norm).double()


# --- targets ---------------------------------------------------------------------------------------------------------


def graphs():
    return [
        from_module(nn.Linear(5, 3), torch.rand(2, 5)),
        from_module(nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Conv2d(5, 2, 1, bias=False)),
                    torch.rand(2, 3, 7, 7)),
    ]  # fmt: skip


def listed(graph):
    return [(target.graph, target.node, target.spec.name, target.classifier) for target in targets(graph)]


def test_targets_of_a_graph():
    first, second = graphs()
    assert listed(first) == [(0, 1, "weight", True), (0, 2, "bias", True)]
    assert listed(second) == [
        (0, 1, "0.weight", False), (0, 2, "0.bias", False), (0, 3, "1.weight", False), (0, 3, "1.bias", False),
        (0, 4, "2.weight", True),
    ]  # fmt: skip


def test_targets_of_a_batch():
    first, second = graphs()
    assert listed(Batch.from_data_list([second, first, second])) == [
        *listed(second),
        (1, 6, "weight", True), (1, 7, "bias", True),
        (2, 9, "0.weight", False), (2, 10, "0.bias", False), (2, 11, "1.weight", False), (2, 11, "1.bias", False),
        (2, 12, "2.weight", True),
    ]  # fmt: skip
    assert listed(Batch.from_data_list([first])) == listed(first)


# --- writing a parameter ---------------------------------------------------------------------------------------------


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
    for place in itertools.product(*(range(size) for size in shape)):
        a, b, *rest = place
        row, column = {2: (0, 0), 3: (rest[0], 0) if rest else (0, 0)}.get(len(shape), tuple(rest[-2:]))
        expected = values[a % block[0], b % block[1], row, column]
        assert out[place if layout == "out_in" else (b, a, *rest)] == expected


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
    for place in itertools.product(*map(range, shape)):
        a, b = joined(*place)
        assert out[place] == block[a % 3, b % 2, 0, 0]


def test_biases_whose_dimensions_are_joined():
    assert filled(ParamSpec("b", (2, 3), "bias", axes="oo"), numbered(5)).tolist() == [[1, 2, 3], [4, 5, 1]]


def test_biases_of_a_stack():
    assert filled(ParamSpec("b", (2, 3), "bias", stacked=1), numbered(2)).tolist() == [[1, 2, 1], [1, 2, 1]]


def test_grouped_transposed_convolutions():
    """(in, out / groups, …): a group's outputs start over, and its inputs go on."""
    spec = ParamSpec("w", (6, 5, 1, 2), "weight", "in_out", groups=2)
    assert spec.node_shape() == (10, 3, 1, 2)
    block = numbered(10, 3, 1, 2)
    out = filled(spec, block)
    for into, outof in itertools.product(range(6), range(5)):
        assert torch.equal(out[into, outof], block[outof, into % 3])


def test_destinations_in_another_precision_and_order():
    out = torch.empty(4, 3, 2, 2, dtype=torch.float16).contiguous(memory_format=torch.channels_last)
    fill_(out, ParamSpec("w", (4, 3, 2, 2), "weight"), numbered(3, 2, 2, 2) / 3)
    expected = filled(ParamSpec("w", (4, 3, 2, 2), "weight"), numbered(3, 2, 2, 2) / 3)
    assert torch.equal(out, expected.half())


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


def reference(model, x, target):
    """One parameter by index arithmetic; by hand but for the blocks of weights."""
    spec = target.spec
    row = x[target.node : target.node + 1]
    if spec.role in ("gain", "bias"):
        size = spec.shape[0]
        vectors = model.vector(row)[0]
        if target.classifier and spec.role == "bias":
            vector = model.vector.classify(row)[0]
        else:
            vector = vectors[0 if spec.role == "gain" else 1]
        values = torch.stack([vector[at % len(vector)] for at in range(size)])
        if not model.weight_norm:
            return values
        return 2 * torch.sigmoid(0.5 * values) if spec.role == "gain" else torch.tanh(0.2 * values)
    out, into, *kernel = spec.node_shape()
    whole = None if target.classifier else C
    (block,) = model.weight(x, [Group([target.node], tuple(kernel), whole, C)])[0]
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
TARGETS = [Target(0, at % 7, spec, False) for at, spec in enumerate(SPECS)] + [
    Target(0, 4, ParamSpec("head", (13, 19), "weight"), True),
    Target(0, 5, ParamSpec("head bias", (13,), "bias"), True),
    Target(1, 6, ParamSpec("small head", (2, 3), "weight"), True),
    Target(1, 2, ParamSpec("small head bias", (2,), "bias"), True),
    Target(2, 1, ParamSpec("convolutional head", (13, 5, 1, 1), "weight"), True),
]


def decoded(model, x, wanted):
    found = {}
    for target, block in model(x, wanted):
        assert target not in found
        out = torch.empty(target.spec.shape, dtype=torch.float64)
        found[target] = fill_(out, target.spec, block)
    return found


@pytest.mark.parametrize("weight_norm", [True, False])
@pytest.mark.parametrize("kind", [ConvDecoder, MLPDecoder])
def test_index_arithmetic_agrees(kind, weight_norm):
    model, x = decoder(kind, weight_norm), embeddings(D)
    found = decoded(model, x, TARGETS)
    assert set(found) == set(TARGETS)
    for target, values in found.items():
        assert_close(values, reference(model, x, target).view(target.spec.shape))


def test_together_and_alone_and_in_any_order():
    model, x = decoder(), embeddings(D)
    found = decoded(model, x, TARGETS)
    assert_close(list(map(decoded(model, x, TARGETS[::-1]).get, TARGETS)), list(map(found.get, TARGETS)))
    for target in TARGETS:
        assert_close(decoded(model, x, iter([target]))[target], found[target])
    assert decoded(model, x, []) == {}


def test_a_node_with_many_parameters():
    model, x = decoder(), embeddings(D)
    specs = [ParamSpec(f"w{at}", (5 + at, 3), "weight") for at in range(3)]
    specs += [ParamSpec("gain", (5,), "gain"), ParamSpec("bias", (5,), "bias"), ParamSpec("other", (3,), "bias")]
    wanted = [Target(0, 3, spec, False) for spec in specs]
    for target, values in decoded(model, x, wanted).items():
        assert_close(values, reference(model, x, target))


@pytest.mark.parametrize("portion", [0, 1, 100, 1000])
@pytest.mark.parametrize("kind", [ConvDecoder, MLPDecoder])
def test_small_portions_give_the_same(kind, portion, monkeypatch):
    model, x = decoder(kind), embeddings(D)
    expected = decoded(model, x, TARGETS)
    monkeypatch.setattr(decoding, "_PORTION", portion)
    found = decoded(model, x, TARGETS)
    assert_close(list(map(found.get, TARGETS)), list(map(expected.get, TARGETS)))


def test_sizes_of_portions(monkeypatch):
    model = decoder()
    wanted = [Target(0, 0, ParamSpec(f"w{at}", (13, 2), "weight"), False) for at in range(5)]  # 14 numbers each
    monkeypatch.setattr(decoding, "_PORTION", 28)
    assert [len(portion) for portion in model.portions(wanted)] == [3, 2]
    monkeypatch.setattr(decoding, "_PORTION", 27)
    assert [len(portion) for portion in model.portions(wanted)] == [2, 2, 1]
    assert list(model.portions([])) == []


def test_what_is_decoded_of_each():
    sizes = {target.spec.name: decoder().size(target) for target in TARGETS}
    assert sizes == {
        "conv": ((3, 3), 7, 3), "wide": ((1, 3), 5, 7), "tall": ((3, 1), 5, 7), "depthwise": ((3, 3), 7, 1),
        "large": ((7, 11), 2, 3), "linear": ((1, 1), 7, 7), "turned": ((1, 1), 7, 7), "sequence": ((5, 1), 3, 7),
        "volume": ((3, 3), 3, 7), "transposed": ((3, 3), 7, 3), "grouped": ((3, 3), 7, 7), "one": ((1, 1), 1, 1),
        "gain": ((1, 1), 7, 1), "bias": ((1, 1), 3, 1), "tokens": ((3, 3), 1, 7), "table": ((2, 2), 1, 5),
        "map": ((3, 7), 1, 7), "head": ((1, 1), None, 7), "head bias": ((1, 1), 7, 1), "small head": ((1, 1), None, 3),
        "small head bias": ((1, 1), 2, 1), "convolutional head": ((1, 1), None, 5),
    }  # fmt: skip


# --- with a whole GHN ------------------------------------------------------------------------------------------------

NETWORKS = {
    "images": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 13, (7, 5), bias=False), nn.BatchNorm2d(13), nn.Conv2d(13, 13, 3, groups=13),
            nn.ConvTranspose2d(13, 6, 2), nn.ConvTranspose2d(6, 10, 3, groups=2), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(10, 23),
        ),
        (2, 3, 17, 19),
    ),
    "sequences": (
        lambda: nn.Sequential(nn.Conv1d(3, 13, 5), nn.BatchNorm1d(13), nn.ConvTranspose1d(13, 5, 3)),
        (2, 3, 17),
    ),
    "volumes": (lambda: nn.Sequential(nn.Conv3d(3, 13, 3), nn.Conv3d(13, 2, (1, 2, 3), bias=False)), (2, 3, 7, 7, 7)),
    "tokens": (
        lambda: network(
            lambda self, x: self.head((self.first(x) + self.positions).mean(1)),
            first=nn.Linear(5, 13), positions=weight(1, 9, 13), head=nn.Linear(13, 7),
        ),
        (2, 9, 5),
    ),
}  # fmt: skip


@pytest.mark.parametrize("encoder", ["ghn3", "ghn2"])
@pytest.mark.parametrize(("build", "shape"), NETWORKS.values(), ids=NETWORKS)
def test_whole_networks(build, shape, encoder):
    torch.manual_seed(3)
    attention = {"layers": 2, "heads": 3} if encoder == "ghn3" else {"layers": 0, "heads": 0, "kernel_crop": "corner"}
    config = GHNConfig(encoder, hidden_channels=D, max_channels=C, max_kernel_size=S, num_classes=K, **attention)
    ghn = GHN(config).double().eval()
    model = build()
    graph = from_module(model, torch.rand(shape))
    x = ghn.embed(graph).detach()
    prediction = ghn.predict(graph)
    assert set(prediction) == {name for name, _ in model.named_parameters()}
    for target in targets(graph):
        assert_close(prediction[target.spec.name], reference(ghn.decoder, x, target).detach())
