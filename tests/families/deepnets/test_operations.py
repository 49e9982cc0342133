import pytest
import torch
import torch.nn.functional as F
from ghn_pyg.families.deepnets.parts import convolution
from torch import nn

from ghn_pyg import PRIMITIVES, from_module
from ghn_pyg.families.deepnets.genotype import OPERATIONS, PARAMETERLESS
from ghn_pyg.families.deepnets.operations import (
    Attention,
    FactorizedReduction,
    SqueezeExcitation,
    TransformerBlock,
    make_operation,
    pointwise,
    reduction,
)

EACH = pytest.mark.parametrize("name", [name for name in OPERATIONS if name != "none"])
STRIDES = {name: (1,) if name == "msa" else (1, 2) for name in OPERATIONS}


def random(*shape, seed=3):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@EACH
@pytest.mark.parametrize("norm", ["bnorm", None])
@pytest.mark.parametrize(("height", "width"), [(8, 6), (7, 5), (1, 1), (2, 3)])
def test_a_stride_halves_the_size_rounded_up(name, norm, height, width):
    for stride in STRIDES[name]:
        out = make_operation(name, 16, stride, norm).build()(random(3, 16, height, width))
        assert out.shape == (3, 16, -(-height // stride), -(-width // stride))


def test_attention_does_not_stride():
    with pytest.raises(ValueError, match="attention does not stride, got stride 2"):
        make_operation("msa", 16, 2, None)


@pytest.mark.parametrize(
    ("name", "stride", "norm", "size"),
    [
        ("max_pool_3x3", 2, "bnorm", 0),
        ("skip_connect", 1, "bnorm", 0),
        ("skip_connect", 2, "bnorm", 2 * 16 * 8 + 32),
        ("skip_connect", 2, None, 2 * 16 * 8),
        ("sep_conv_3x3", 2, "bnorm", 2 * (16 * 9 + 16 * 16 + 32)),
        ("sep_conv_5x5", 1, None, 2 * (16 * 25 + 16 * 16)),
        ("dil_conv_3x3", 1, "bnorm", 16 * 9 + 16 * 16 + 32),
        ("dil_conv_5x5", 2, "bnorm", 16 * 25 + 16 * 16 + 32),
        ("conv_1x1", 1, "bnorm", 16 * 16 + 32),
        ("conv_7x1_1x7", 2, "bnorm", 2 * 16 * 16 * 7 + 32),
        ("conv_3x3", 1, None, 16 * 16 * 9),
        ("conv_5x5", 1, "bnorm", 16 * 16 * 25 + 32),
        ("conv_7x7", 2, "bnorm", 16 * 16 * 49 + 32),
        ("msa", 1, "bnorm", 32 + 3 * 256 + 272 + 32 + 272 + 272),
        ("cse", 1, "bnorm", 16 * 8 + 8 + 8 * 16 + 16),
    ],
)
def test_numbers_of_parameters(name, stride, norm, size):
    part = make_operation(name, 16, stride, norm)
    assert part.size == size
    assert sum(parameter.numel() for parameter in part.build().parameters()) == size


@EACH
@pytest.mark.parametrize("norm", ["bnorm", None])
def test_nodes_are_what_a_trace_finds(name, norm):
    for stride in STRIDES[name]:
        parts = [make_operation(name, 16, stride, norm)]
        parts += [] if name != "skip_connect" else [pointwise(16, 24, norm), reduction(16, 21, norm)]
        for part in parts:
            graph = from_module(nn.Sequential(nn.Conv2d(3, 16, 1, bias=False), part.build()), torch.empty(1, 3, 8, 6))
            assert graph.node_names[2:] == ["1" + node.name for node in part.nodes]
            assert [PRIMITIVES[kind] for kind in graph.node_type[2:]] == [PRIMITIVES[node.kind] for node in part.nodes]
            assert graph.node_shape[2:].tolist() == [list(node.shape) for node in part.nodes]
            expected = [["1" + short for short, _, _ in node.params] for node in part.nodes]
            assert graph.param_names[2:] == expected
            edges = {(source + 2, place + 2) for place, node in enumerate(part.nodes) for source in node.inputs}
            assert {tuple(edge) for edge in graph.edge_index.t().tolist()} == {(0, 1), *edges}


def test_literal_names():
    names = [node.name for node in make_operation("sep_conv_5x5", 8, 1, "bnorm").nodes]
    assert names == [f".op.{place}.weight" for place in (1, 2, 3, 5, 6, 7)]
    without = [node.name for node in make_operation("sep_conv_5x5", 8, 1, None).nodes]
    assert without == [f".op.{place}.weight" for place in (1, 2, 5, 6)]
    assert [node.name for node in make_operation("msa", 8, 1, None).nodes] == [
        ".ln1.weight", ".attn.to_qkv.weight", ".attn:msa", ".attn.to_out.0.weight", ".attn.to_out.0.bias", ":sum",
        ".ln2.weight", ".ff.net.0.weight", ".ff.net.0.bias", ".ff.net.3.weight", ".ff.net.3.bias", ":sum#2",
    ]  # fmt: skip


def test_equal_parts_are_one_object():
    assert make_operation("cse", 16, 1, None) is make_operation("cse", 16, 1, None)
    assert make_operation("cse", 16, 2, None) is not make_operation("cse", 16, 1, None)


@pytest.mark.parametrize("name", sorted(PARAMETERLESS))
def test_operations_without_parameters(name):
    assert make_operation(name, 16, 1, "bnorm").size == 0


def test_a_dropped_branch_is_never_called():
    with pytest.raises(NotImplementedError):
        make_operation("none", 16, 1, None).build()(torch.zeros(1, 16, 2, 2))


def test_averages_do_not_count_the_padding():
    ones = torch.ones(1, 2, 5, 5)
    torch.testing.assert_close(make_operation("avg_pool_3x3", 2, 2, None).build()(ones), torch.ones(1, 2, 3, 3))


def test_the_flat_kernel_comes_first_and_each_strides_along_itself():
    _, flat, upright, _ = make_operation("conv_7x1_1x7", 4, 2, "bnorm").build().op
    assert (flat.kernel_size, flat.stride, flat.padding) == ((1, 7), (1, 2), (0, 3))
    assert (upright.kernel_size, upright.stride, upright.padding) == ((7, 1), (2, 1), (3, 0))


def test_dilated_convolutions():
    _, depthwise, _, _ = make_operation("dil_conv_5x5", 4, 2, "bnorm").build().op
    assert (depthwise.dilation, depthwise.groups, depthwise.stride, depthwise.padding) == ((2, 2), 4, (2, 2), (4, 4))


@pytest.mark.parametrize(
    ("size", "even", "odd"),
    [(4, [[0, 2], [8, 10]], [[5, 7], [13, 15]]), (3, [[0, 2], [6, 8]], [[4, 0], [0, 0]]), (1, [[0]], [[0]])],
)
def test_a_factorised_reduction_takes_two_grids(size, even, odd):
    convolutions = [convolution(1, 1, stride=2).build() for _ in range(2)]
    for layer in convolutions:
        nn.init.ones_(layer.weight)
    image = torch.arange(size * size).view(1, 1, size, size).float()
    out = FactorizedReduction(*convolutions, nn.Identity())(image)
    assert out.tolist() == [[even, odd]]


def test_a_gate():
    fc1, fc2 = nn.Linear(6, 3), nn.Linear(3, 6)
    x = random(2, 6, 5, 4)
    gate = F.hardswish(fc2(torch.relu(fc1(x.flatten(2).mean(2)))))
    torch.testing.assert_close(SqueezeExcitation(fc1, fc2, 1)(x), torch.einsum("bchw,bc->bchw", x, gate))
    strided = torch.einsum("bchw,bc->bchw", x[:, :, ::2, ::2], gate)
    torch.testing.assert_close(SqueezeExcitation(fc1, fc2, 2)(x), strided)


def test_attention_is_that_of_torch():
    ours = make_operation("msa", 16, 1, None).build()
    reference = nn.TransformerEncoderLayer(16, 8, 16, 0.0, F.gelu, batch_first=True, norm_first=True)
    assert isinstance(ours, TransformerBlock)
    assert isinstance(ours.attn, Attention)
    with torch.no_grad():
        reference.self_attn.in_proj_weight.copy_(ours.attn.to_qkv.weight)
        reference.self_attn.in_proj_bias.zero_()
    pairs = [(reference.self_attn.out_proj, ours.attn.to_out[0]), (reference.linear1, ours.ff.net[0]),
             (reference.linear2, ours.ff.net[3]), (reference.norm1, ours.ln1), (reference.norm2, ours.ln2)]  # fmt: skip
    for theirs, own in pairs:
        theirs.load_state_dict(own.state_dict())
    x = random(2, 16, 3, 5)
    expected = reference(x.flatten(2).transpose(1, 2)).transpose(1, 2).view(2, 16, 3, 5)
    torch.testing.assert_close(ours(x), expected)


def test_channels_that_heads_cannot_share():
    with pytest.raises(ValueError, match="attention has 8 heads, which must divide the channels, got 20; change width"):
        make_operation("msa", 20, 1, None)


def test_inputs_are_not_written_to():
    x = random(2, 16, 6, 6)
    before = x.clone()
    for name in OPERATIONS[1:]:
        make_operation(name, 16, 1, "bnorm").build()(x)
    assert torch.equal(x, before)
