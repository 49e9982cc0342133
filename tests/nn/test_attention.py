import psutil
import pytest
import torch
from torch.nn.attention.flex_attention import flex_attention

from ghn_pyg.nn import attention as module
from ghn_pyg.nn.attention import TableBias, dense_attention, table_attention
from ghn_pyg.nn.blocks import Blocks
from ghn_pyg.nn.cpu_table_attention import lookup_bias
from tests.properties import assert_close, assert_same_gradients

# On a CPU it is not compiled, and says so.
UNFUSED = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")

SIZES = (3, 1, 0, 17, 2, 130, 130)
HEADS, WIDTH = 3, 5


def states(dtype=torch.float64):
    generator = torch.Generator().manual_seed(7)
    shape = (sum(SIZES), HEADS, WIDTH)
    return [torch.randn(shape, generator=generator, dtype=dtype, requires_grad=True) for _ in range(3)]


def table_bias(blocks):
    generator = torch.Generator().manual_seed(11)
    table = torch.randn(HEADS, 13, generator=generator, dtype=torch.float64, requires_grad=True)
    columns = torch.randint(13, (sum(size * size for size in SIZES),), generator=generator)
    return table, columns, TableBias(table, [block.split_pairs(columns) for block in blocks], blocks)


def reference(states, columns=None, table=None):
    """Graph by graph, head by head, by the formula."""
    found, start, square = [], 0, 0
    for size in SIZES:
        query, key, value = (part[start : start + size] for part in states)
        attended = []
        for head in range(HEADS):
            scores = query[:, head] @ key[:, head].T / WIDTH**0.5
            if columns is not None:
                scores = scores + table[head][columns[square : square + size * size].view(size, size)]
            weights = scores.exp() / scores.exp().sum(1, keepdim=True)
            attended.append(weights @ value[:, head])
        found.append(torch.stack(attended, dim=1))
        start, square = start + size, square + size * size
    return torch.cat(found)


@pytest.mark.parametrize("attention", [dense_attention, table_attention])
def test_the_formula_agrees(attention):
    blocks = Blocks.of_sizes(SIZES)
    table, columns, bias = table_bias(blocks)
    parts = states()
    result, expected = blocks.join(attention(*parts, blocks, bias)), reference(parts, columns, table)
    assert_close(result, expected, 1e-9)
    assert_same_gradients(result, expected, [*parts, table], 1e-8)


@pytest.fixture
def looked_up(monkeypatch):
    """As if all biases were too many to hold; the rows that are looked up at a time."""
    rows = []

    def lookup(table, position):
        rows.append(position.size(1))
        return lookup_bias(table, position)

    monkeypatch.setattr(module, "_MAX_DENSE", 0)
    monkeypatch.setattr(module, "_ROWS_SIZE", 7 * 130 * HEADS * 2)
    monkeypatch.setattr(module, "_ROWS_SIZE_FOR_GRADIENTS", 11 * 130 * HEADS * 2)
    monkeypatch.setattr(module.cpu, "lookup_bias", lookup)
    return rows


def test_rows_after_one_another_agree(looked_up):
    blocks = Blocks.of_sizes(SIZES)
    table, columns, bias = table_bias(blocks)
    parts = states()
    expected = reference(parts, columns, table)
    with torch.no_grad():
        result = blocks.join(dense_attention(*parts, blocks, bias))
    assert_close(result, expected, 1e-9)
    assert looked_up[-19:] == [7] * 18 + [4]


def test_gradients_of_rows_after_one_another_agree(looked_up):
    blocks = Blocks.of_sizes(SIZES)
    table, columns, bias = table_bias(blocks)
    parts = states()
    result = blocks.join(dense_attention(*parts, blocks, bias))
    assert looked_up[-12:] == [11] * 11 + [9]
    forward = len(looked_up)
    assert_same_gradients(result, reference(parts, columns, table), [*parts, table], 1e-8)
    assert len(looked_up) == 2 * forward  # again in the backward pass, instead of being held


def test_dropout_of_rows_after_one_another(looked_up):
    blocks = Blocks.of_sizes(SIZES)
    _, _, bias = table_bias(blocks)
    query, key, _ = states()
    value = torch.ones_like(query).requires_grad_()
    torch.manual_seed(3)
    result = blocks.join(dense_attention(query, key, value, blocks, bias, 0.5))
    assert result.mean().item() == pytest.approx(1, abs=0.1)
    assert result.std() > 0.05
    (gradient,) = torch.autograd.grad(result.sum(), value)  # dropped in the backward pass are the same
    assert gradient.sum().item() == pytest.approx(result.sum().item())


@pytest.mark.parametrize(("held", "kind"), [(HEADS * 17 * 17, list), (HEADS * 17 * 17 - 1, TableBias)])
def test_many_biases_stay_in_their_table(monkeypatch, held, kind):
    monkeypatch.setattr(module, "_MAX_DENSE", held)
    bias = TableBias(torch.ones(HEADS, 2), [torch.zeros(1, 17, 17, dtype=torch.int16)], Blocks.of_sizes([17]))
    assert type(bias.dense_if_small()) is kind
    assert bias.shapes == [(1, HEADS, 17, 17)]


def test_biases_that_do_not_fit_into_memory(monkeypatch):
    class Memory:
        available = 70_000_000

    monkeypatch.setattr(psutil, "virtual_memory", Memory)
    column = torch.zeros(1, 1, 1, dtype=torch.int16).expand(1, 2003, 2003)
    bias = TableBias(torch.ones(HEADS, 2), [column], Blocks.of_sizes([2003]))
    with pytest.raises(MemoryError, match=r"bias of all pairs of nodes needs 0.1 GB, 0.1 GB are free; .*exphormer"):
        bias.dense()


@UNFUSED
def test_flex_attention_agrees():
    blocks = Blocks.of_sizes(SIZES)
    table, columns, bias = table_bias(blocks)
    parts = [part.detach() for part in states()]
    with torch.no_grad():
        bias = TableBias(table, bias.columns, blocks)
        result = blocks.join(table_attention(*parts, blocks, bias))
    assert_close(result, reference(parts, columns, table.detach()), 1e-6)


@pytest.mark.parametrize(
    ("kind", "columns"),
    [(torch.uint8, 255), (torch.uint8, 256), (torch.int8, 128), (torch.int8, 200), (torch.int64, 5), (torch.uint16, 7)],
)
def test_columns_of_any_integer_type(kind, columns):
    table, largest = torch.randn(2, columns), min(columns - 1, torch.iinfo(kind).max)
    blocks = Blocks.of_sizes([3, 2])
    position = torch.tensor([[[0, largest, 3], [largest, 1, 0], [0, 2, 4]], [[1, 2, 0], [3, 4, 0], [0, 0, 0]]])
    (found,) = TableBias(table, [position.to(kind)], blocks).dense()
    assert torch.equal(found[0], table[:, position[0]])
    assert torch.equal(found[1, :, :2, :2], table[:, position[1, :2, :2]])
    assert found[1, :, :, 2].isneginf().all()


@UNFUSED
def test_heads_that_are_filled_up(monkeypatch):
    """As on a GPU, whose kernels want heads of 16 channels or more."""
    monkeypatch.setattr(module, "_COMPILED_DEVICES", ("cpu",))
    widths = []

    def kernel(query, key, value, **options):
        widths.append(query.size(-1))
        return flex_attention(query, key, value, **options)

    monkeypatch.setattr(module, "_flex_attention", lambda device: kernel)
    blocks, parts = Blocks.of_sizes(SIZES), states()
    table, columns, bias = table_bias(blocks)
    with torch.no_grad():
        bias = TableBias(table, bias.columns, blocks)
        result = blocks.join(table_attention(*[part.detach() for part in parts], blocks, bias))
    assert set(widths) == {16}
    assert_close(result, reference(parts, columns, table.detach()), 1e-6)


@pytest.mark.parametrize("attention", [dense_attention, table_attention])
def test_without_a_bias(attention):
    blocks, parts = Blocks.of_sizes(SIZES), states()
    result, expected = blocks.join(attention(*parts, blocks, None)), reference(parts)
    assert_close(result, expected, 1e-9)
    assert_same_gradients(result, expected, parts, 1e-8)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda dense: dense[:2],
        lambda dense: [part[:, :1] for part in dense],
        lambda dense: [part[0] for part in dense],
        lambda dense: [part[..., :-1] for part in dense],
    ],
)
@pytest.mark.parametrize("attention", [dense_attention, table_attention])
def test_biases_of_another_batch(attention, wrong):
    blocks = Blocks.of_sizes(SIZES)
    *_, bias = table_bias(blocks)
    with pytest.raises(ValueError, match="bias expected a tensor for each block, of the shapes"):
        attention(*states(), blocks, wrong(bias.dense()))


@pytest.mark.parametrize("attention", [dense_attention, table_attention])
@pytest.mark.parametrize(
    "wrong",
    [
        lambda table, columns: (table[:1], columns),
        lambda table, columns: (table, columns[:2]),
        lambda table, columns: (table, [part[:0] for part in columns]),
        lambda table, columns: (table, [part[:, :1] for part in columns]),
    ],
)
def test_a_table_of_another_batch(attention, wrong):
    blocks = Blocks.of_sizes(SIZES)
    *_, bias = table_bias(blocks)
    bias.table, bias.columns = wrong(bias.table, bias.columns)
    with torch.no_grad(), pytest.raises(ValueError, match="bias expected a tensor for each block, of the shapes"):
        attention(*[part.detach() for part in states()], blocks, bias)


def test_dropout_drops():
    blocks, parts = Blocks.of_sizes(SIZES), states()
    *_, bias = table_bias(blocks)
    torch.manual_seed(3)
    first = blocks.join(table_attention(*parts, blocks, bias, 0.5))
    assert not torch.allclose(first, blocks.join(table_attention(*parts, blocks, bias)))
    torch.manual_seed(3)
    assert torch.equal(first, blocks.join(dense_attention(*parts, blocks, bias, 0.5)))


def test_own_biases():
    """A number for every pair and head, one graph after another."""
    blocks = Blocks.of_sizes(SIZES)
    table, columns, bias = table_bias(blocks)
    own = blocks.biases(table.T[columns])
    for mine, looked_up, block in zip(own, bias.dense(), blocks, strict=True):
        nodes = slice(None) if block.mask is None else block.mask  # rows of padding mean nothing
        torch.testing.assert_close(mine.transpose(1, 2)[nodes], looked_up.transpose(1, 2)[nodes], rtol=0, atol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("channels", [8, 16])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-3), (torch.bfloat16, 0.1)], ids=str)
def test_flex_attention_on_a_gpu(dtype, tolerance, channels):
    """Compiled, forward and backward, on graphs of unequal size; FlexAttention wants heads of 16 channels or more."""
    blocks = Blocks.of_sizes(SIZES, "cuda")
    table, columns, _ = table_bias(Blocks.of_sizes(SIZES))
    table = table.detach().to("cuda", dtype).requires_grad_()
    generator = torch.Generator().manual_seed(3)
    shape = (sum(SIZES), HEADS, channels)
    parts = [torch.randn(shape, generator=generator).to("cuda", dtype).requires_grad_() for _ in "qkv"]
    bias = TableBias(table, blocks.split_pairs(columns.cuda()), blocks)
    results = [blocks.join(attention(*parts, blocks, bias)) for attention in (table_attention, dense_attention)]
    assert_close(*results, tolerance)
    assert_same_gradients(*results, [*parts, table], 10 * tolerance)
