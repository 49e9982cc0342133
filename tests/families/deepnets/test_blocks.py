import torch
from torch import nn

from ghn_pyg.families.deepnets.blocks import (
    INPUT,
    PositionalEmbedding,
    Subsample,
    batch_norm,
    positional_embedding,
)
from ghn_pyg.families.deepnets.operations import make_operation


def on_meta(block):
    with torch.device("meta"):
        return block.module(meta=True)


def test_a_positional_embedding_is_a_root():
    table, total = positional_embedding(5, 7).nodes
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


def test_copies_equal_what_is_built():
    block = make_operation("msa", 16, 1, "bnorm")
    copy = on_meta(block)
    with torch.device("meta"):
        built = block.build()
    assert repr(copy) == repr(built)
    assert {name: (p.shape, p.device.type, p.requires_grad) for name, p in copy.named_parameters()} == {
        name: (p.shape, "meta", True) for name, p in built.named_parameters()
    }
    assert copy(torch.empty(2, 16, 3, 3, device="meta")).shape == (2, 16, 3, 3)


def test_copies_share_nothing_that_can_be_changed():
    block = make_operation("sep_conv_3x3", 16, 1, "bnorm")
    first, second = on_meta(block), on_meta(block)
    assert not {id(p) for p in first.parameters()} & {id(p) for p in second.parameters()}
    assert not {id(m) for m in first.modules()} & {id(m) for m in second.modules()}
    first.op[1].register_forward_hook(lambda *_: None)
    first.op[1].weight = nn.Parameter(torch.zeros(1))
    first.op.append(nn.ReLU())
    first.eval()
    for other in (second, on_meta(block)):
        assert not other.op[1]._forward_hooks
        assert other.op[1].weight.shape == (16, 1, 3, 3)
        assert len(other.op) == 8
        assert other.training


def test_copies_have_the_default_type():
    block = make_operation("conv_3x3", 4, 1, None)
    assert {parameter.dtype for parameter in block.module(meta=True).parameters()} == {torch.float32}
    torch.set_default_dtype(torch.float64)
    try:
        assert {parameter.dtype for parameter in block.module(meta=True).parameters()} == {torch.float64}
    finally:
        torch.set_default_dtype(torch.float32)
