import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from ghn_pyg.nn import cpu_table_attention as module
from ghn_pyg.nn.attention import TableBias, dense_attention, uses_cpu_table
from ghn_pyg.nn.blocks import Blocks
from ghn_pyg.nn.cpu_table_attention import cpu_table_attention, lookup_bias, may_hide_all_keys, supports
from tests.properties import assert_close, assert_pure, assert_same_gradients

HEADS, WIDTH, COLUMNS = 3, 5, 7


def inputs(graphs=2, nodes=11, dtype=torch.float64):
    generator = torch.Generator().manual_seed(3)
    shapes = [(graphs, nodes, HEADS, WIDTH)] * 3 + [(HEADS, COLUMNS)]
    states = [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]
    position = torch.randint(COLUMNS, (graphs, nodes, nodes), generator=generator)
    return *(part.requires_grad_() for part in states), position


def reference(query, key, value, table, position):
    """Graph by graph, head by head, by the formula."""
    graphs = []
    for graph, columns in enumerate(position):
        attended = []
        for head in range(HEADS):
            q, k, v = (part[graph, :, head] for part in (query, key, value))
            scores = q @ k.T / WIDTH**0.5 + table[head][columns]
            attended.append(scores.exp() / scores.exp().sum(1, keepdim=True) @ v)
        graphs.append(torch.stack(attended, dim=1))
    return torch.stack(graphs)


@pytest.fixture(params=["whole", "graphs", "rows"])
def cut(request, monkeypatch):
    """All pairs in one piece, a few graphs in each, or a few rows of one graph."""
    if request.param == "graphs":
        monkeypatch.setattr(module, "_CHUNK_SIZE", HEADS * 11 * 11 * 2)
    if request.param == "rows":
        monkeypatch.setattr(module, "_CHUNK_SIZE", HEADS * 11 * 3)
        monkeypatch.setattr(module, "_MIN_ROWS", 2)


@pytest.mark.usefixtures("cut")
@pytest.mark.parametrize("graphs", [1, 5])
def test_the_formula_agrees(graphs):
    given = inputs(graphs)
    result, expected = cpu_table_attention(*given), reference(*given)
    assert_close(result, expected, 1e-12)
    assert_same_gradients(result, expected, list(given[:-1]), 1e-10)


def more(graphs, nodes=11):
    generator = torch.Generator().manual_seed(5)
    return torch.randn(graphs, HEADS, nodes, nodes, generator=generator, dtype=torch.float64).requires_grad_()


def reference_with(given, extra, factor):
    """With more biases, and a factor of each weight (G, H, n, n)."""
    query, key, value, table, position = given
    score = torch.einsum("gihc,gjhc->ghij", query, key) / WIDTH**0.5 + table[:, position].transpose(0, 1) + extra
    return torch.einsum("ghij,gjhc->gihc", score.softmax(-1) * factor, value)


def factors(given, extra, dropout):
    """Which weights a seed drops: with a value of its own for each key the weights are seen."""
    query, key, value, table, position = (part.detach() for part in given)
    parts = []
    for start in range(0, len(position[0]), WIDTH):  # a few keys at a time
        own = torch.zeros_like(value)
        for channel, node in enumerate(range(start, min(start + WIDTH, len(position[0])))):
            own[:, node, :, channel] = 1
        torch.manual_seed(13)
        parts.append(cpu_table_attention(query, key, own, table, position, extra.detach(), dropout))
    return torch.cat(parts, -1)[..., : len(position[0])].transpose(1, 2).ne(0).double() / (
        1 - round(dropout * 2**16) / 2**16
    )


@pytest.mark.usefixtures("cut")
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_more_biases_and_dropout(dropout):
    given, extra = inputs(5), more(5)
    factor = factors(given, extra, dropout)
    assert factor.gt(0).double().mean().item() == pytest.approx(1 - dropout, abs=0.03)
    torch.manual_seed(13)
    result, expected = cpu_table_attention(*given, extra, dropout), reference_with(given, extra, factor)
    assert_close(result, expected, 1e-12)
    assert_same_gradients(result, expected, [*given[:-1], extra], 1e-10)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gradients_of_gradients_of_everything(dropout):
    *states, table, position = inputs(2, 3)

    def attend(*parts):
        torch.manual_seed(13)
        return cpu_table_attention(*parts[:-1], position, parts[-1], dropout)

    assert torch.autograd.gradgradcheck(attend, (*states, table, more(2, 3)), fast_mode=True)


@pytest.mark.parametrize("nodes", [3, 11])
def test_gradients_of_gradients(nodes):
    *states, table, position = inputs(2, nodes)
    assert torch.autograd.gradgradcheck(
        lambda *parts: cpu_table_attention(*parts, position), (*states, table), fast_mode=True
    )


def test_gradients_of_gradients_with_mixed_precision():
    *states, table, position = inputs(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        result = cpu_table_attention(*states, table, position)
        found = torch.autograd.grad(result.sum(), states[1], create_graph=True)[0]
    expected = torch.autograd.grad(cpu_table_attention(*states, table, position).sum(), states[1])[0]
    assert found.dtype == torch.float32
    assert_close(found, expected, 1e-6)


def test_several_gradients_at_once():
    *states, position = inputs(3)
    result = cpu_table_attention(*states, position)
    incoming = torch.randn(5, *result.shape, dtype=result.dtype)
    together = torch.autograd.grad(result, states, incoming, is_grads_batched=True, retain_graph=True)
    for number, one in enumerate(incoming):
        expected = torch.autograd.grad(result, states, one, retain_graph=True)
        assert_close([part[number] for part in together], list(expected), 1e-10)


def test_a_column_that_hides():
    *states, table, position = inputs()
    with torch.no_grad():
        table[:, -1] = -torch.inf
    position[:, :, 2] = COLUMNS - 1
    position[:, 2, 3] = 0
    result, expected = cpu_table_attention(*states, table, position), reference(*states, table, position)
    assert_close(result, expected, 1e-12)
    assert_same_gradients(result, expected, [*states, table], 1e-10)
    cpu_table_attention(*states, table, position).square().sum().backward()
    assert table.grad.any(0).tolist() == [True] * (COLUMNS - 1) + [False]


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_other_precisions(dtype, limit):
    given = inputs(dtype=dtype)
    wide = [part.detach().double().requires_grad_() for part in given[:-1]]
    result, expected = cpu_table_attention(*given), reference(*wide, given[-1])
    assert result.dtype == dtype
    assert_close(result.double(), expected, limit)
    result.sum().backward()
    expected.sum().backward()
    for part, other in zip(given[:-1], wide, strict=True):
        assert part.grad.dtype == dtype
        assert_close(part.grad.double(), other.grad, 2 * limit)


def test_mixed_precision_computes_in_float32():
    *states, table, position = inputs(dtype=torch.float32)
    states = [part.detach().bfloat16().requires_grad_() for part in states]
    with torch.autocast("cpu", torch.bfloat16):
        result = cpu_table_attention(*states, table, position)
        result.float().sum().backward()
    exact = [part.detach().double() for part in states]
    expected = reference(*exact, table.detach().double(), position)
    assert result.dtype == torch.bfloat16
    assert table.grad.dtype == torch.float32
    assert_close(result.double(), expected, 4e-3)


def test_nothing_is_changed():
    *states, table, position = (part.detach() for part in inputs())
    table.requires_grad_()
    assert_pure(lambda *parts: cpu_table_attention(*parts, table, position).detach(), *states)


# --- when it is used -----------------------------------------------------------------------------------------------


def test_for_tables_that_are_trained():
    *states, table, position = inputs()
    assert supports(table, *states)
    assert not supports(table.detach(), *states)
    assert may_hide_all_keys(torch.cat((table, table.new_full((HEADS, 1), -torch.inf), table), 1))
    assert not may_hide_all_keys(torch.cat((table, table.new_full((HEADS, 1), -torch.inf)), 1))
    with torch.no_grad():
        assert not supports(table, *states)
    bias = TableBias(table, [position], Blocks.of_sizes([11, 11]))
    assert uses_cpu_table(bias, 0.0)
    assert uses_cpu_table(bias, 0.1)
    assert supports(table.detach(), *states, dropout=0.1)
    assert not uses_cpu_table(
        TableBias(table, [position], bias.blocks, [torch.full((2, HEADS, 11, 11), -torch.inf)]), 0
    )
    assert not uses_cpu_table(bias.dense(), 0.0)


def attend(query, key, value, table, position):
    """What layers call."""
    blocks = Blocks.of_sizes([len(part) for part in query])
    states = (part.flatten(0, 1) for part in (query, key, value))
    (found,) = dense_attention(*states, blocks, TableBias(table, [position], blocks))
    return found


def test_transforms_of_functions():
    *states, position = inputs()

    def loss(*parts):
        return attend(*parts, position).square().sum()

    expected = torch.autograd.grad(loss(*states), states)
    assert_close(list(torch.func.grad(loss, (0, 1, 2, 3))(*states)), list(expected), 1e-9)
    three = torch.stack([states[0], states[0] * 2, states[0]])
    many = torch.func.vmap(torch.func.grad(loss, (0, 1, 2, 3)), (0, None, None, None))(three, *states[1:])
    assert_close([part[2] for part in many], list(expected), 1e-9)
    second = torch.func.jacfwd(torch.func.grad(lambda table: loss(*states[:-1], table)))(states[-1])
    backwards = torch.func.jacrev(torch.func.grad(lambda table: loss(*states[:-1], table)))(states[-1])
    assert_close(second, backwards, 1e-8)
    assert second.any()


def test_forward_derivatives():
    *states, position = inputs()
    direction = torch.ones_like(states[0])
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(states[0], direction)
        result = torch.autograd.forward_ad.unpack_dual(attend(dual, *states[1:], position)).tangent
    step = 1e-6 * direction
    ends = [attend(states[0] + sign * step, *states[1:], position) for sign in (1, -1)]
    assert_close(result, (ends[0] - ends[1]) / 2e-6, 1e-6)


def test_lookup():
    table = torch.arange(2 * 5.0).view(2, 5).requires_grad_()
    position = torch.tensor([[0, 4, 2], [2, 2, 1]])
    result = lookup_bias(table, position)
    assert result.tolist() == [[[0, 4, 2], [2, 2, 1]], [[5, 9, 7], [7, 7, 6]]]
    result.sum().backward()
    assert table.grad.tolist() == [[1, 1, 3, 0, 1]] * 2


@pytest.mark.parametrize("kind", [torch.uint8, torch.int16, torch.int64])
def test_columns_of_any_integer_type(kind):
    table = torch.randn(3, 256)
    position = torch.tensor([0, 255, 254, 7, 255]).to(kind).repeat(5, 1)
    assert torch.equal(lookup_bias(table, position), table[:, position.long()])


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_biases_with_any_number_of_threads(threads, dtype, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    table, position = torch.randn(2, 5).to(dtype), torch.randint(5, (7, 11, 11))
    assert torch.equal(lookup_bias(table, position), table[:, position])


@pytest.mark.parametrize("grad", [True, False])
def test_numbers_that_cannot_be_looked_at(grad):
    with FakeTensorMode(), torch.set_grad_enabled(grad):
        found = lookup_bias(torch.empty(3, 256, requires_grad=True), torch.empty(2, 97, 97, dtype=torch.int16))
    assert found.shape == (3, 2, 97, 97)
