import copy

import pytest
import torch
from torch import nn

from ghn_pyg.nn.attention import add_biases
from ghn_pyg.nn.attention_bias import SpatialEncoding
from ghn_pyg.nn.blocks import Blocks
from ghn_pyg.nn.ghn3_encoder import GHN3Encoder
from ghn_pyg.nn.graphormer import GraphormerLayer, GraphToken, GraphTransformer
from tests.properties import (
    ENCODER_PROPERTIES,
    TOLERANCE,
    assert_close,
    assert_pure,
    assert_same_gradients,
    join,
    name_of,
    unequal_graphs,
)
from tests.textbook import reference_layer

D, HEADS = 12, 3
SIZES = (5, 1, 2, 19, 0, 3)


class Graphormer(nn.Module):
    """The layers as a user puts them together, called as an encoder is."""

    def __init__(self, layers=2, **options):
        super().__init__()
        self.spatial = SpatialEncoding(HEADS, max_distance=5, directed=True)
        self.layers = GraphTransformer(D, layers, HEADS, **options)

    def forward(self, x, edge_index, distance, batch=None):
        blocks = Blocks.of(batch, len(x))
        return self.layers(x, blocks, self.spatial(distance, blocks))


class WithToken(Graphormer):
    """The same with a token for each graph, which then is forgotten."""

    def __init__(self):
        super().__init__()
        self.token = GraphToken(D, HEADS)

    def forward(self, x, edge_index, distance, batch=None):
        before = Blocks.of(batch, len(x))
        x, blocks, bias = self.token(x, before, self.spatial(distance, before))
        return self.token.split(self.layers(x, blocks, bias), blocks)[1]


def model(kind=Graphormer, **options):
    torch.manual_seed(3)
    return kind(**options).double()


def layer():
    torch.manual_seed(5)
    return GraphormerLayer(D, HEADS).double()


def nodes():
    return torch.randn(sum(SIZES), D, dtype=torch.float64, requires_grad=True)


def numbers():
    """A bias for every pair and head of the graphs, one graph after another."""
    generator = torch.Generator().manual_seed(7)
    pairs = sum(size * size for size in SIZES)
    return torch.randn(pairs, HEADS, dtype=torch.float64, generator=generator, requires_grad=True)


def reference(layer, x, values):
    parts = values.split([size * size for size in SIZES])
    blocks = [part.view(size, size, HEADS).permute(2, 0, 1) for part, size in zip(parts, SIZES, strict=True)]
    found = zip(x.split(SIZES), blocks, strict=True)
    return torch.cat([reference_layer(layer, part, bias) for part, bias in found])


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("holds", ENCODER_PROPERTIES, ids=name_of)
def test_properties_with_tokens(holds, dtype):
    holds(model(WithToken).to(dtype), D)


def test_the_formula_agrees():
    x, values, one = nodes(), numbers(), layer()
    blocks = Blocks.of_sizes(SIZES)
    result, expected = one(x, blocks, blocks.biases(values)), reference(one, x, values)
    assert_close(result, expected, 1e-9)
    assert_same_gradients(result, expected, [x, values, *one.parameters()])
    assert_pure(lambda x, values: one(x, blocks, blocks.biases(values)), x.detach(), values.detach())


def test_biases_add_up():
    x, values, one = nodes(), numbers(), layer()
    blocks = Blocks.of_sizes(SIZES)
    bias = blocks.biases(values)
    assert_close(one(x, blocks, add_biases(bias, bias)), one(x, blocks, blocks.biases(values * 2)))


def test_checkpointing_changes_nothing():
    x, values = nodes(), numbers()
    torch.manual_seed(3)
    plain = GraphTransformer(D, 3, HEADS, dropout=0.2).double()
    frugal = GraphTransformer(D, 3, HEADS, dropout=0.2, checkpointing=True).double()
    frugal.load_state_dict(plain.state_dict())
    blocks = Blocks.of_sizes(SIZES)
    results, counts = [], []
    for stack in (plain, frugal):
        calls = []
        for one in stack:
            one.register_forward_pre_hook(lambda *given, calls=calls: calls.append(given[0]))
        torch.manual_seed(5)
        result = stack(x, blocks, blocks.biases(values))
        counts.append(len(calls))
        gradients = torch.autograd.grad(result.square().sum(), [x, values, *stack.parameters()])
        counts.append(len(calls))
        results.append((result, *gradients))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=0)
    assert counts == [3, 3, 3, 6]  # the backward pass computes each layer again
    assert next(iter(plain.state_dict())) == "0.norm1.weight"


@pytest.mark.parametrize("kind", [Graphormer, lambda **options: GHN3Encoder(D, 2, HEADS, **options)])
def test_checkpointing_with_biases_of_a_table(kind):
    frugal, plain = model(kind, checkpointing=True), model(kind)
    x, *rest = join(unequal_graphs(D))
    x.requires_grad_()
    assert_same_gradients(frugal(x, *rest), plain(x, *rest), [x])
    frugal(x, *rest).sum().backward()
    assert all(parameter.grad is not None for parameter in frugal.parameters())


def test_a_list_is_no_batch():
    with pytest.raises(TypeError, match=r"batch expected the graph of each node, such as data\.batch, got list"):
        GraphormerLayer(8, 2)(torch.zeros(3, 8), [0, 0, 1])


@pytest.mark.parametrize("dropout", [-0.5, 1.0])
def test_dropout_is_a_share(dropout):
    with pytest.raises(ValueError, match=f"dropout must be from 0 to less than 1, got {dropout}"):
        GraphTransformer(8, 1, 2, dropout)


def test_weights_are_drawn_anew():
    torch.manual_seed(3)
    model = GraphTransformer(8, 2, 2)
    before = [weight.clone() for weight in model.parameters() if weight.dim() > 1]
    with torch.no_grad():
        model[1].norm1.weight.fill_(7)
    model.reset_parameters()
    assert not any(map(torch.equal, before, (weight for weight in model.parameters() if weight.dim() > 1)))
    assert model[1].norm1.weight.eq(1).all()


def test_a_single_tensor_is_no_bias():
    blocks = Blocks.of_sizes([3])
    with pytest.raises(TypeError, match=r"got one tensor of \(9,\); for distances call SpatialEncoding"):
        GraphormerLayer(8, 2)(torch.zeros(3, 8), blocks, torch.zeros(9))


def test_tokens_are_split_with_their_own_blocks():
    token, blocks = GraphToken(8, 2), Blocks.of_sizes([3, 2])
    x, _, _ = token(torch.zeros(5, 8), blocks)
    with pytest.raises(ValueError, match="the batch has 5 nodes and x has 7; pass the batch of these nodes"):
        token.split(x, blocks)


def test_dropout_is_for_training():
    x = nodes()
    stack = GraphTransformer(D, 2, HEADS, dropout=0.5).double()
    assert not torch.equal(stack(x), stack(x))
    stack.eval()
    assert torch.equal(stack(x), stack(x))


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (torch.tensor([0, 1, 0]), "batch expected ascending numbers from 0; sort the nodes by"),
        (torch.tensor([-1, 0, 0]), "batch expected ascending numbers from 0"),
        (torch.tensor([0.0, 0, 1]), r"batch expected integers of shape \(N,\), got torch.float32 of \(3,\)"),
        (torch.tensor([False, False, True]), r"batch expected integers of shape \(N,\), got torch.bool of \(3,\)"),
        (torch.tensor([[0, 0, 1]]), r"batch expected integers of shape \(N,\), got torch.int64 of \(1, 3\)"),
        (torch.tensor([0, 1]), "the batch has 2 nodes and x has 3; pass the batch of these nodes"),
        (Blocks.of_sizes([2, 2]), "the batch has 4 nodes and x has 3; pass the batch of these nodes"),
    ],
)
def test_batches_that_do_not_fit(batch, message):
    with pytest.raises(ValueError, match=message):
        layer()(nodes()[:3], batch)


def test_a_batch_without_nodes():
    with pytest.raises(ValueError, match="expected a batch with nodes, got none"):
        layer()(nodes()[:0], torch.empty(0, dtype=torch.long))


@pytest.mark.parametrize("heads", [0, 5])
def test_heads_that_do_not_fit(heads):
    with pytest.raises(ValueError, match=f"channels must be a multiple of heads, got 12 and {heads}"):
        GraphormerLayer(D, heads)


# --- tokens ----------------------------------------------------------------------------------------------------------


def token():
    torch.manual_seed(11)
    return GraphToken(D, HEADS).double()


def test_tokens_stand_in_front_of_their_graph():
    x, module = nodes(), token()
    joined, blocks, bias = module(x, Blocks.of_sizes(SIZES))
    assert blocks.sizes == [6, 2, 3, 20, 1, 4]  # a graph without nodes has one too: as many tokens as graphs
    starts = [0, 6, 8, 11, 31, 32]
    assert torch.equal(joined[starts], module.embedding.expand(6, -1))
    tokens, rest = module.split(joined, blocks)
    assert torch.equal(tokens, joined[starts])
    assert torch.equal(rest, x)
    assert len(bias) == len(blocks.blocks) == 3


@pytest.mark.parametrize("biased", [True, False])
def test_tokens_see_all_nodes_of_their_graph(biased):
    x, values, one, module = nodes(), numbers(), layer(), token()
    before = Blocks.of_sizes(SIZES)
    joined, blocks, bias = module(x, before, before.biases(values) if biased else None)
    expected, values = [], values if biased else torch.zeros_like(values)
    for size, own, part in zip(SIZES, x.split(SIZES), values.split([s * s for s in SIZES]), strict=True):
        numbers_of = module.bias.new_zeros(HEADS, size + 1, size + 1)
        numbers_of[:, 1:, 1:] = part.view(size, size, HEADS).permute(2, 0, 1)
        numbers_of[:, 0] += module.bias[:, None]
        numbers_of[:, 1:, 0] += module.bias[:, None]
        expected.append(reference_layer(one, torch.cat((module.embedding, own)), numbers_of))
    result, expected = one(joined, blocks, bias), torch.cat(expected)
    assert_close(result, expected, 1e-9)
    assert_same_gradients(result, expected, [x, *module.parameters(), *one.parameters()])


# --- other precisions and compilers ----------------------------------------------------------------------------------


def test_autocast_is_near():
    one, x, values = layer().float(), nodes().float(), numbers().float()
    blocks = Blocks.of_sizes(SIZES)
    with torch.autocast("cpu", torch.bfloat16):
        result = one(x, blocks, blocks.biases(values))
    expected = one(x, blocks, blocks.biases(values))
    assert not torch.equal(result, expected)
    assert_close(result.float(), expected, 0.05)


@pytest.fixture
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("fresh_compiler")
def test_the_compiler_takes_batches_of_other_shapes():
    eager = model(layers=1).float()
    compiled = torch.compile(copy.deepcopy(eager), fullgraph=True, backend="eager")
    for sizes in ([5, 3], [7, 7, 7], [1, 2, 3, 140]):
        blocks, x = Blocks.of_sizes(sizes), torch.randn(sum(sizes), D)
        distance = torch.arange(sum(size * size for size in sizes)) % 7
        assert_close(compiled(x, None, distance, blocks), eager(x, None, distance, blocks), 1e-5)


@pytest.mark.usefixtures("fresh_compiler")
def test_the_compiler_gives_the_same_gradients():
    eager = model(layers=1).float()
    compiled = torch.compile(copy.deepcopy(eager), fullgraph=True, backend="aot_eager")
    blocks, x = Blocks.of_sizes([1, 2, 19]), torch.randn(22, D, requires_grad=True)
    distance, gradients = torch.arange(1 + 4 + 361) % 7, []
    for one in (compiled, eager):
        loss = one(x, None, distance, blocks).square().sum()
        gradients.append(torch.autograd.grad(loss, [x, *one.parameters()]))
    assert_close(*gradients, 1e-4)
