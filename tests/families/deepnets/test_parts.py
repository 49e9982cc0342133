import pytest
import torch
from ghn_pyg.families.deepnets.parts import (
    IDENTITY,
    INPUT,
    RELU,
    Part,
    PositionalEmbedding,
    Subsample,
    batch_norm,
    chain,
    convolution,
    duplicate,
    extend,
    join,
    linear,
    positions,
)
from torch import nn

from ghn_pyg.families.deepnets.operations import make_operation
from ghn_pyg.graph.node_types import PRIMITIVE_ID


def on_meta(part):
    with torch.device("meta"):
        return part.module(meta=True)


def test_chains_name_their_parts_by_position():
    part = chain(RELU, linear(3, 5), IDENTITY, linear(5, 2, bias=False), name=".net")
    assert [node.name for node in part.nodes] == [".net.1.weight", ".net.1.bias", ".net.3.weight"]
    assert [node.inputs for node in part.nodes] == [(INPUT,), (0,), (1,)]
    assert part.size == 15 + 5 + 10
    assert [type(layer) for layer in part.build()][0::2] == [nn.ReLU, nn.Identity]


def test_parts_are_appended_behind_what_is_there():
    nodes = [*linear(2, 3).nodes]
    assert extend(nodes, ".a", linear(3, 3), 0) == 3
    assert [(node.name, node.inputs) for node in nodes[2:]] == [(".a.weight", (0,)), (".a.bias", (2,))]
    assert nodes[2].params == ((".a.weight", (3, 3), "weight"),)
    assert extend(nodes, ".b", RELU, 1) == 1
    assert len(nodes) == 4


def test_joins():
    nodes = [*linear(2, 3).nodes]
    assert join(nodes, "sum", ":sum", [1, 1]) == 1
    assert len(nodes) == 2
    assert join(nodes, "concat", ":concat", [1, INPUT, 0, 1]) == 2
    assert nodes[2] == (PRIMITIVE_ID["concat"], ":concat", (), (0, 0, 0, 0), (INPUT, 0, 1))


@pytest.mark.parametrize(
    ("part", "kind", "shape"),
    [
        (convolution(3, 5, 7), "conv", (5, 3, 7, 7)),
        (convolution(6, 6, (1, 7), groups=6), "sep_conv", (6, 1, 1, 7)),
        (convolution(6, 4, 3, dilation=2, groups=2), "dil_conv", (4, 3, 3, 3)),
        (convolution(3, 5, 3, dilation=2), "conv", (5, 3, 3, 3)),
        (batch_norm(7), "bn", (7, 1, 1, 1)),
        (linear(3, 5), "conv", (5, 3, 1, 1)),
        (positions(5, 7), "pos_enc", (1, 5, 7, 7)),
    ],
)
def test_types_and_shapes(part, kind, shape):
    assert (part.nodes[0].kind, part.nodes[0].shape) == (PRIMITIVE_ID[kind], shape)
    built = {f".{name}": tuple(parameter.shape) for name, parameter in part.build().named_parameters()}
    assert {name: size for node in part.nodes for name, size, _ in node.params} == built


def test_a_positional_embedding_is_a_root():
    table, total = positions(5, 7).nodes
    assert (table.inputs, total.inputs) == ((), (INPUT, 0))
    module = PositionalEmbedding(5, 7)
    x = torch.rand(2, 5, 7, 7)
    torch.testing.assert_close(module(x) - x, module.weight.expand(2, -1, -1, -1))
    assert 0.01 < module.weight.std() < 0.03


def test_every_other_position():
    assert Subsample()(torch.arange(15).view(1, 1, 3, 5)).tolist() == [[[[0, 2, 4], [10, 12, 14]]]]


def test_batch_norms_keep_no_statistics():
    norm = batch_norm(3).build()
    x = 5 + 7 * torch.rand(11, 3, 2, 2)
    assert not [*norm.buffers()]
    assert torch.equal(norm.eval()(x), norm.train()(x))
    torch.testing.assert_close(norm(x).mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)


def test_initial_values_are_those_of_torch():
    torch.manual_seed(3)
    ours = [convolution(3, 5, 3).build(), linear(7, 2).build()]
    torch.manual_seed(3)
    theirs = [nn.Conv2d(3, 5, 3, bias=False), nn.Linear(7, 2)]
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own.state_dict(), other.state_dict(), rtol=0, atol=0)


# --- on the meta device ----------------------------------------------------------------------------------------------


def test_copies_are_what_is_built():
    part = make_operation("msa", 16, 1, "bnorm")
    copy = on_meta(part)
    with torch.device("meta"):
        built = part.build()
    assert repr(copy) == repr(built)
    assert {name: (p.shape, p.device.type, p.requires_grad) for name, p in copy.named_parameters()} == {
        name: (p.shape, "meta", True) for name, p in built.named_parameters()
    }
    assert copy(torch.empty(2, 16, 3, 3, device="meta")).shape == (2, 16, 3, 3)


def test_copies_share_nothing_that_can_be_changed():
    part = make_operation("sep_conv_3x3", 16, 1, "bnorm")
    first, second = on_meta(part), on_meta(part)
    assert not {id(p) for p in first.parameters()} & {id(p) for p in second.parameters()}
    assert not {id(m) for m in first.modules()} & {id(m) for m in second.modules()}
    first.op[1].register_forward_hook(lambda *_: None)
    first.op[1].weight = nn.Parameter(torch.zeros(1))
    first.op.append(nn.ReLU())
    first.eval()
    for other in (second, on_meta(part)):
        assert not other.op[1]._forward_hooks
        assert other.op[1].weight.shape == (16, 1, 3, 3)
        assert len(other.op) == 8
        assert other.training


def test_copies_can_be_filled():
    copy = on_meta(make_operation("conv_3x3", 4, 1, None)).to_empty(device="cpu")
    copy.load_state_dict({"op.1.weight": torch.ones(4, 4, 3, 3)})
    assert copy(torch.ones(1, 4, 1, 1)).flatten().tolist() == [4, 4, 4, 4]


def test_modules_without_parameters_or_children():
    module = nn.Linear(3, 2, bias=False, device="meta")
    module.extra = None
    module.add_module("absent", None)
    copy = duplicate(module)
    assert copy.bias is None
    assert copy.absent is None
    assert [*Part(nn.Identity).module(meta=False).parameters()] == []


def test_copies_have_the_default_type():
    part = make_operation("conv_3x3", 4, 1, None)
    assert {parameter.dtype for parameter in part.module(meta=True).parameters()} == {torch.float32}
    torch.set_default_dtype(torch.float64)
    try:
        assert {parameter.dtype for parameter in part.module(meta=True).parameters()} == {torch.float64}
    finally:
        torch.set_default_dtype(torch.float32)
