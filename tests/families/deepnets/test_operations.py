import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ghn_pyg.families.deepnets import OPERATIONS
from ghn_pyg.families.deepnets.blocks import convolution
from ghn_pyg.families.deepnets.genotype import PARAMETERLESS
from ghn_pyg.families.deepnets.operations import (
    FactorizedReduction,
    SqueezeExcitation,
    make_operation,
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
    block = make_operation(name, 16, stride, norm)
    assert block.num_parameters == size
    assert sum(parameter.numel() for parameter in block.build().parameters()) == size


def test_operations_without_parameters():
    assert {name for name in OPERATIONS if make_operation(name, 16, 1, "bnorm").num_parameters == 0} == PARAMETERLESS


def test_averages_do_not_count_the_padding():
    ones = torch.ones(1, 2, 5, 5)
    torch.testing.assert_close(make_operation("avg_pool_3x3", 2, 2, None).build()(ones), torch.ones(1, 2, 3, 3))


def test_the_flat_kernel_comes_first_and_each_strides_along_itself():
    _, flat, upright, _ = make_operation("conv_7x1_1x7", 4, 2, "bnorm").build().op
    assert (flat.kernel_size, flat.stride, flat.padding) == ((1, 7), (1, 2), (0, 3))
    assert (upright.kernel_size, upright.stride, upright.padding) == ((7, 1), (2, 1), (3, 0))


@pytest.mark.parametrize(
    ("size", "even", "odd"),
    [(4, [[0, 2], [8, 10]], [[5, 7], [13, 15]]), (3, [[0, 2], [6, 8]], [[4, 0], [0, 0]]), (1, [[0]], [[0]])],
)
def test_a_factorised_reduction_takes_two_grids(size, even, odd):
    convolutions = [convolution(1, 1, stride=2).build() for _ in range(2)]
    for layer in convolutions:
        nn.init.ones_(layer.weight)
    image = torch.arange(size * size).view(1, 1, size, size).float()
    out = FactorizedReduction(conv_1=convolutions[0], conv_2=convolutions[1], bn=nn.Identity())(image)
    assert out.tolist() == [[even, odd]]


def test_a_gate():
    fc1, fc2 = nn.Linear(6, 3), nn.Linear(3, 6)
    x = random(2, 6, 5, 4)
    gate = F.hardswish(fc2(torch.relu(fc1(x.flatten(2).mean(2)))))
    torch.testing.assert_close(SqueezeExcitation(1, fc1=fc1, fc2=fc2)(x), torch.einsum("bchw,bc->bchw", x, gate))
    strided = torch.einsum("bchw,bc->bchw", x[:, :, ::2, ::2], gate)
    torch.testing.assert_close(SqueezeExcitation(2, fc1=fc1, fc2=fc2)(x), strided)


def test_attention_is_that_of_torch():
    ours = make_operation("msa", 16, 1, None).build()
    reference = nn.TransformerEncoderLayer(16, 8, 16, 0.0, F.gelu, batch_first=True, norm_first=True)
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
