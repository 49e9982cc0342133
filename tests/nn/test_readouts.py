import pytest
import torch
from torch_geometric.nn.aggr import MultiAggregation

from ghn_pyg.nn.blocks import Blocks
from ghn_pyg.nn.graphormer import GraphToken
from ghn_pyg.nn.readouts import AttentionReadout, LastReadout, Readout, TokenReadout
from tests.properties import TOLERANCE, assert_close, assert_pure, assert_same_gradients

D = 12
SIZES = (0, 3, 1, 0, 17, 2, 0)
READOUTS = {
    "mean": lambda: Readout("mean"),
    "sum": lambda: Readout("sum"),
    "max": lambda: Readout("max"),
    "attention": lambda: AttentionReadout(D),
    "token": TokenReadout,
    "last": LastReadout,
}
KINDS = pytest.mark.parametrize("kind", READOUTS)


def readout(kind):
    torch.manual_seed(3)
    return READOUTS[kind]().double()


def nodes(dtype=torch.float64):
    x = torch.randn(sum(SIZES), D, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    return x.to(dtype).requires_grad_()


def reference(kind, model, x):
    """One graph, of shape (n, d)."""
    if not len(x):
        return x.new_zeros(D)
    if kind == "attention":
        score = model.aggregation.gate_nn(x).flatten().exp()
        return (score / score.sum()) @ x
    simple = {"mean": lambda: x.sum(0) / len(x), "sum": lambda: x.sum(0), "max": lambda: x.amax(0)}
    return {**simple, "token": lambda: x[0], "last": lambda: x[-1]}[kind]()


@KINDS
def test_the_formula_agrees(kind):
    model, x = readout(kind), nodes()
    result = model(x, Blocks.of_sizes(SIZES))
    expected = torch.stack([reference(kind, model, part) for part in x.split(SIZES)])
    assert result.shape == (7, D)
    assert_close(result, expected)
    assert_same_gradients(result, expected, [x, *model.parameters()])


@KINDS
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_properties(kind, dtype):
    model, x = readout(kind).to(dtype), nodes(dtype).detach()
    blocks = Blocks.of_sizes(SIZES)
    together = model(x, blocks)
    assert together.dtype == dtype
    assert together.isfinite().all()
    alone = [model(part) if len(part) else torch.zeros(1, D, dtype=dtype) for part in x.split(SIZES)]
    assert_close(together, torch.cat(alone), TOLERANCE[dtype])
    # Graphs behind the last node are not told by a vector alone.
    assert_close(model(x, blocks.vector()), together[:-1], TOLERANCE[dtype])
    assert_close(model(x, blocks.vector(), batch_size=7), together, TOLERANCE[dtype])
    assert_pure(lambda x: model(x, blocks), x)


@pytest.mark.parametrize("kind", ["mean", "sum", "max", "attention"])
def test_the_order_of_nodes_does_not_matter(kind):
    model, x = readout(kind), nodes()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(7))
    assert_close(model(x[order]), model(x))


def test_tokens_of_graphs():
    token, x = GraphToken(D, 3), nodes(torch.float32)
    x, blocks, _ = token(x, Blocks.of_sizes(SIZES))
    assert torch.equal(TokenReadout()(x, blocks), token.split(x, blocks)[0])
    of_vector = token(nodes(torch.float32), Blocks.of_sizes(SIZES).vector(), batch_size=7)
    assert of_vector[1].sizes == [1, 4, 2, 1, 18, 3, 1]
    assert torch.equal(of_vector[0], x)


def test_any_aggregation():
    both = Readout(MultiAggregation(["mean", "std"]))(torch.tensor([[1.0], [3.0], [7.0]]), torch.tensor([0, 0, 1]))
    assert_close(both, torch.tensor([[2.0, 1.0], [7.0, 0.0]]), 1e-2)


def test_a_batch_of_other_nodes():
    with pytest.raises(ValueError, match="the batch has 3 nodes and x has 2"):
        LastReadout()(torch.zeros(2, D), torch.tensor([0, 0, 1]))


@pytest.mark.parametrize("size", [1, 3])
def test_numbers_of_graphs_that_do_not_fit(size):
    with pytest.raises(ValueError, match="batch_size expected"):
        LastReadout()(torch.zeros(3, D), Blocks.of_sizes([2, 1]) if size == 3 else torch.tensor([0, 0, 1]), size)
