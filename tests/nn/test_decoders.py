import math

import pytest
import torch

from ghn_pyg.nn.decoders import ConvDecoder, Group, MLPDecoder, VectorDecoder, crop_window, enlarge, rounded_channels
from tests.properties import (
    DECODER_PROPERTIES,
    GROUPS,
    TOLERANCE,
    assert_close,
    assert_pure,
    assert_same_gradients,
    embeddings,
    name_of,
)

D, C, S, K = 12, 7, 5, 11
DECODERS = {"conv": ConvDecoder, "mlp": MLPDecoder}
CROPS = pytest.mark.parametrize("crop", ["center", "corner"])
EACH = pytest.mark.parametrize("kind", DECODERS.values(), ids=DECODERS)


def decoder(kind, crop="center", channels=C, size=S):
    torch.manual_seed(3)
    return kind(D, channels, size, K, crop).double()


# --- all of it, then what is needed ----------------------------------------------------------------------------------


def affine(layer, x):
    return layer.weight @ x + layer.bias


def relu(x):
    return torch.clamp(x, min=0)


def whole_conv(model, x):
    """Every position and channel of one node: (C, C, S, S)."""
    channels, size = model.max_channels, model.max_kernel_size
    maps = relu(affine(model.fc, x)).view(4 * len(x), size, size)
    whole = torch.empty(channels, channels, size, size, dtype=x.dtype)
    for row in range(size):
        for column in range(size):
            hidden = relu(affine(model.conv[0], maps[:, row, column]))
            whole[:, :, row, column] = affine(model.conv[2], hidden).view(channels, channels)
    return whole


def whole_mlp(model, x):
    channels, size = model.max_channels, model.max_kernel_size
    return affine(model.fc[2], relu(affine(model.fc[0], x))).view(channels, channels, size, size)


def positions(length, size, crop):
    """The rows (or columns) that a kernel takes."""
    if length >= size:
        return list(range(size))
    if crop == "corner":
        return list(range(length))
    return list(range(max(0, size // 2 - length // 2), size // 2 + math.ceil(length / 2)))


def bilinear(values, length):
    """Interpolates the last dimension, the ends of pixels aligned."""
    size, columns = values.shape[-1], []
    for target in range(length):
        place = max((target + 0.5) * size / length - 0.5, 0)
        left = min(int(place), size - 1)
        right = min(left + 1, size - 1)
        columns.append(values[..., left] * (1 - place + left) + values[..., right] * (place - left))
    return torch.stack(columns, dim=-1)


def enlarged(block, kernel):
    return bilinear(bilinear(block, kernel[1]).transpose(-1, -2), kernel[0]).transpose(-1, -2)


def reference(model, x, group):
    """The blocks of a group, node by node."""
    whole = whole_conv if isinstance(model, ConvDecoder) else whole_mlp
    found = []
    for node in group.nodes:
        if group.out is None and isinstance(model, MLPDecoder):
            flat = affine(model.classifier, relu(affine(model.fc[0], x[node])))
            block = flat.view(-1, model.max_channels, 1, 1)[:, : group.into]
        else:
            rows, columns = (positions(length, model.max_kernel_size, model.crop) for length in group.kernel)
            block = whole(model, x[node])[:, :, rows][:, :, :, columns][: group.out, : group.into]
            if group.out is None:
                block = torch.einsum("ko,oihw->kihw", model.classifier.weight, relu(block))
                block = block + model.classifier.bias[:, None, None, None]
        if block.shape[-2:] != group.kernel:
            block = enlarged(block, group.kernel)
        found.append(block)
    return torch.stack(found)


# --- weights ---------------------------------------------------------------------------------------------------------


@CROPS
@EACH
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("holds", DECODER_PROPERTIES, ids=name_of)
def test_properties(holds, kind, crop, dtype):
    holds(decoder(kind, crop).to(dtype), D)


@CROPS
@EACH
def test_the_whole_computation_agrees(kind, crop):
    model, x = decoder(kind, crop), embeddings(D).requires_grad_()
    result = torch.cat([blocks.flatten() for blocks in model(x, GROUPS)])
    expected = torch.cat([reference(model, x, group).flatten() for group in GROUPS])
    assert_close(result, expected)
    assert_same_gradients(result, expected, [x, *model.parameters()])


KERNELS = [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (1, 3), (3, 1), (2, 5), (5, 4), (6, 6), (7, 3), (2, 13), (11, 5)]


@CROPS
@EACH
@pytest.mark.parametrize("size", [1, 4, 5])
def test_kernels_of_any_size(kind, crop, size):
    model, x = decoder(kind, crop, channels=3, size=size), embeddings(D)
    groups = [Group([2, 5], kernel, 3, 2) for kernel in KERNELS]
    for group, blocks in zip(groups, model(x, groups), strict=True):
        assert blocks.shape == (2, 3, 2, *group.kernel)
        assert_close(blocks, reference(model, x, group))


@EACH
def test_channels_on_both_sides_of_the_rounding(kind):
    """Products are rounded up to 8, 32 and 37 channels, and their results cut."""
    model, x = decoder(kind, channels=37, size=3), embeddings(D)
    sides = [1, 2, 7, 8, 9, 31, 32, 33, 37]
    groups = [Group([1], (1, 1), out, into) for out in sides for into in sides]
    groups += [Group([4], (1, 1), None, into) for into in sides]
    whole = {node: reference(model, x, Group([node], (1, 1), 37, 37)) for node in (1, 4)}
    for group, blocks in zip(groups, model(x, groups), strict=True):
        expected = whole[1][:, : group.out, : group.into] if group.out else reference(model, x, group)
        assert blocks.shape == (1, group.out or K, group.into, 1, 1)
        assert_close(blocks, expected)


@EACH
@pytest.mark.parametrize("kernel", [(3, 3), (3, 4), (9, 2)])
def test_classification_layers_with_a_kernel(kind, kernel):
    model, x, group = decoder(kind), embeddings(D), Group([0, 4], kernel, None, 5)
    (blocks,) = model(x, [group])
    assert blocks.shape == (2, K, 5, *kernel)
    assert_close(blocks, reference(model, x, group))


@EACH
def test_a_node_in_many_groups_and_many_times_in_one(kind):
    model, x = decoder(kind), embeddings(D)
    groups = [Group([3, 3], (3, 3), 2, 5), Group([3], (3, 3), 5, 2), Group([3, 0, 3], (3, 3), 2, 5)]
    results = model(x, groups)
    for group, blocks in zip(groups, results, strict=True):
        assert_close(blocks, reference(model, x, group))
    assert_close(results[0][0], results[0][1])


@EACH
def test_blocks_share_no_memory(kind):
    """What is decoded is scaled in place."""
    model, x = decoder(kind), embeddings(D)
    with torch.no_grad():
        blocks = model(x, GROUPS)
        expected = [one.clone() for one in blocks]
        blocks[0].zero_()
        assert_close(list(blocks[1:]), expected[1:], 0)
        assert_close(model(x, GROUPS)[0], expected[0], 0)


@EACH
def test_gradients_of_gradients(kind):
    torch.manual_seed(3)
    model = kind(4, 2, 2, 3).double()
    x = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    groups = [Group([0, 1], (2, 1), 2, 1), Group([1], (1, 1), None, 2)]
    assert torch.autograd.gradgradcheck(lambda value: [blocks.tanh() for blocks in model(value, groups)], [x])


def test_last_layers():
    conv, mlp, vector = decoder(ConvDecoder), decoder(MLPDecoder), VectorDecoder(D, C, K)
    assert [tuple(layer.weight.shape) for layer in conv.last_layers()] == [(49, 96), (11, 7)]
    assert [tuple(layer.weight.shape) for layer in mlp.last_layers()] == [(1225, 24), (77, 24)]
    assert [tuple(layer.weight.shape) for layer in vector.last_layers()] == [(14, 24)]


# --- parts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kernel", "size", "center", "corner"),
    [
        (1, 16, (8, 9), (0, 1)),
        (2, 16, (7, 9), (0, 2)),
        (3, 16, (7, 10), (0, 3)),
        (7, 16, (5, 12), (0, 7)),
        (14, 16, (1, 15), (0, 14)),
        (15, 16, (1, 16), (0, 15)),
        (16, 16, (0, 16), (0, 16)),
        (17, 16, (0, 16), (0, 16)),
        (31, 16, (0, 16), (0, 16)),
        (1, 11, (5, 6), (0, 1)),
        (2, 11, (4, 6), (0, 2)),
        (3, 11, (4, 7), (0, 3)),
        (10, 11, (0, 10), (0, 10)),
        (1, 1, (0, 1), (0, 1)),
        (3, 1, (0, 1), (0, 1)),
    ],
)
def test_crop_windows(kernel, size, center, corner):
    for crop, (start, stop) in (("center", center), ("corner", corner)):
        assert crop_window(kernel, size, crop) == slice(start, stop)
        assert positions(kernel, size, crop) == list(range(start, stop))


@pytest.mark.parametrize(
    ("channels", "limit", "expected"),
    [(1, 64, 1), (3, 64, 3), (7, 64, 7), (8, 64, 32), (32, 64, 32), (33, 64, 64), (64, 64, 64), (8, 11, 11),
     (33, 37, 37), (97, 384, 128), (384, 384, 384)],
)  # fmt: skip
def test_rounding_of_channels(channels, limit, expected):
    assert rounded_channels(channels, limit) == expected


def test_enlarging():
    row = torch.tensor([0.0, 1.0, 4.0])
    result = enlarge(row.view(1, 1, 1, 1, 3), (1, 6))
    assert result.flatten().tolist() == [0.0, 0.25, 0.75, 1.75, 3.25, 4.0]
    block = torch.randn(2, 3, 5, 4, 2, dtype=torch.float64)
    assert_close(enlarge(block, (7, 5)), enlarged(block, (7, 5)))
    assert enlarge(block, (4, 2)) is block
    assert_pure(enlarge, block, (5, 2))


# --- vectors ---------------------------------------------------------------------------------------------------------


def vector_decoder():
    torch.manual_seed(3)
    return VectorDecoder(D, C, K).double()


def test_vectors():
    model, x = vector_decoder(), embeddings(D).requires_grad_()
    expected = torch.stack([affine(model.fc[2], relu(affine(model.fc[0], row))).view(2, C) for row in x])
    assert model(x).shape == (7, 2, C)
    assert_close(model(x), expected)
    assert_same_gradients(model(x), expected, [x, *model.parameters()])


def test_biases_of_classification_layers():
    model, x = vector_decoder(), embeddings(D).requires_grad_()
    biases = [affine(model.fc[2], relu(affine(model.fc[0], row))).view(2, C)[1] for row in x]
    expected = torch.stack([affine(model.classifier, relu(bias)) for bias in biases])
    assert model.classify(x).shape == (7, K)
    assert_close(model.classify(x), expected)
    assert_same_gradients(model.classify(x), expected, [x, *model.parameters()])


def test_vectors_of_nodes_together_are_each_alone():
    model, x, order = vector_decoder(), embeddings(D), torch.tensor([3, 1, 0, 6, 2, 5, 4])
    for function in (model, model.classify):
        assert_close(function(x), torch.cat([function(x[node : node + 1]) for node in range(7)]))
        assert_close(function(x[order]), function(x)[order])
        assert_pure(function, x)
        assert function(torch.zeros(1, D, dtype=torch.float64)).isfinite().all()
    assert_close(vector_decoder().float()(x.float()).double(), model(x), 1e-4)


@EACH
def test_no_groups(kind):
    assert list(decoder(kind)(embeddings(D), [])) == []
