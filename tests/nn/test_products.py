import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ghn_pyg.nn import products
from ghn_pyg.nn.products import Band, bands, leading_products
from tests.properties import assert_close, assert_pure, assert_same_gradients


def inputs(shapes, rows, size=(7, 5), width=3, seed=0):
    """A weight, a bias and features for each group, in double precision."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()

    return draw(*size, width), draw(*size), [draw(count, width) for count in rows[: len(shapes)]]


def reference(weight, bias, features, shapes):
    """Each group by itself, with all of the weight."""
    return [
        torch.einsum("oik,pk->oip", weight[:out, :into], rows) + bias[:out, :into, None]
        for rows, (out, into) in zip(features, shapes, strict=True)
    ]


def check(shapes, rows, size=(7, 5), width=3):
    weight, bias, features = inputs(shapes, rows, size, width)
    results = leading_products(weight, bias, features, shapes)
    expected = reference(weight, bias, features, shapes)
    assert [tuple(one.shape) for one in results] == [(*s, n) for s, n in zip(shapes, rows, strict=False)]
    assert_close(list(results), expected)
    flat, other = (torch.cat([one.flatten() for one in several]) for several in (results, expected))
    assert_same_gradients(flat, other, [weight, bias, *features])


SHAPES = {
    "one": [(7, 5)],
    "one corner": [(1, 1)],
    "nested": [(7, 5), (3, 2), (1, 1)],
    "nested, smallest first": [(1, 1), (3, 2), (7, 5)],
    "crossing": [(7, 2), (3, 5)],
    "a stair": [(7, 1), (5, 2), (3, 4), (1, 5)],
    "the same": [(3, 2), (3, 2), (3, 2)],
    "the same height": [(3, 1), (3, 5), (3, 2)],
    "the same width": [(7, 2), (1, 2), (3, 2)],
    "one row": [(1, 5), (1, 3)],
    "one column": [(7, 1), (4, 1)],
    "many": [(out, into) for out in range(1, 8) for into in range(1, 6)],
}


@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
def test_einsum_agrees(shapes):
    check(shapes, [2, 1, 4, 3, 6, 11] * 6)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 11), st.integers(1, 6), st.integers(0, 4)), min_size=1, max_size=9),
    st.integers(1, 3),
)
def test_einsum_agrees_on_any_shapes(groups, width):
    check([(out, into) for out, into, _ in groups], [count for *_, count in groups], (11, 6), width)


@pytest.mark.parametrize("height", [1, 2, 3, 5])
def test_parts_of_the_rows(height, monkeypatch):
    monkeypatch.setattr(products, "_ROWS", height)
    check(SHAPES["a stair"], [2, 3, 5, 1])


def test_more_rows_than_one_part():
    check([(131, 2), (64, 3), (65, 1)], [2, 3, 5], size=(131, 3))


@pytest.mark.parametrize("name", ["one", "crossing", "a stair", "the same"])
def test_gradients(name):
    shapes = SHAPES[name]
    weight, bias, features = inputs(shapes, [2, 1, 3, 2])
    assert torch.autograd.gradcheck(lambda w, b, *x: leading_products(w, b, x, shapes), (weight, bias, *features))


def test_gradients_of_gradients():
    shapes = SHAPES["crossing"]
    weight, bias, features = inputs(shapes, [2, 1])
    assert torch.autograd.gradgradcheck(
        lambda w, b, *x: [one.tanh() for one in leading_products(w, b, x, shapes)], (weight, bias, *features)
    )


def test_gradients_by_transforms_of_functions():
    shapes = SHAPES["crossing"]
    weight, bias, features = inputs(shapes, [2, 1])
    came, expected = (
        torch.func.grad(lambda w, b, x, f=function: sum(one.tanh().sum() for one in f(w, b, x, shapes)), (0, 1, 2))(
            weight, bias, features
        )
        for function in (leading_products, reference)
    )
    assert_close(came, expected)


def test_results_that_are_not_used():
    weight, bias, features = inputs([(7, 2), (3, 5)], [2, 3])
    first, _ = leading_products(weight, bias, features, [(7, 2), (3, 5)])
    expected, _ = reference(weight, bias, features, [(7, 2), (3, 5)])
    assert_same_gradients(first, expected, [weight, bias, *features])


def test_gradients_that_are_not_asked_for():
    weight, bias, features = inputs([(7, 2), (3, 5)], [2, 3])
    for leaf in (weight, bias, features[0]):
        leaf.requires_grad_(False)
    results = leading_products(weight, bias, features, [(7, 2), (3, 5)])
    expected = reference(weight, bias, features, [(7, 2), (3, 5)])
    assert_same_gradients(results[1], expected[1], [features[1]])


def test_without_gradients():
    weight, bias, features = inputs([(7, 2), (3, 5)], [2, 3])
    with torch.no_grad():
        results = leading_products(weight, bias, features, [(7, 2), (3, 5)])
    assert not any(one.requires_grad for one in results)
    assert_close(list(results), [one.detach() for one in reference(weight, bias, features, [(7, 2), (3, 5)])])


def test_inputs_are_not_changed():
    weight, bias, features = inputs([(7, 2), (3, 5)], [2, 3])
    arguments = [weight.detach(), bias.detach(), [rows.detach() for rows in features]]
    assert_pure(lambda *values: leading_products(*values, [(7, 2), (3, 5)]), *arguments)


def test_weights_that_are_views():
    """Not in one piece, as when they come out of another network."""
    shapes = [(7, 2), (3, 5), (2, 1)]
    weight, bias, features = inputs(shapes, [2, 3, 5])
    views = weight.detach().permute(2, 1, 0).contiguous().permute(2, 1, 0), bias.detach().T.contiguous().T
    spread = [torch.stack([rows.detach()] * 2, dim=2)[..., 0] for rows in features]
    results = leading_products(*views, spread, shapes)
    assert_close(list(results), [one.detach() for one in reference(weight, bias, features, shapes)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_other_precisions(dtype):
    shapes = [(7, 2), (3, 5)]
    weight, bias, features = inputs(shapes, [2, 3])
    low = [weight.detach().to(dtype), bias.detach().to(dtype), [rows.detach().to(dtype) for rows in features]]
    for one, expected in zip(leading_products(*low, shapes), reference(weight, bias, features, shapes), strict=True):
        assert one.dtype == dtype
        assert_close(one.double(), expected.detach(), 1e-5 if dtype == torch.float32 else 0.1)


def test_every_cell_once():
    """A stair of three: rows 0 and 1 are for all, row 2 for the first two, rows 3 to 6 for the first."""
    assert list(bands([(7, 1), (3, 3), (2, 5)])) == [
        Band(slice(0, 2), [2, 1, 0], [(slice(0, 1), 3), (slice(1, 3), 2), (slice(3, 5), 1)]),
        Band(slice(2, 3), [1, 0], [(slice(0, 1), 2), (slice(1, 3), 1)]),
        Band(slice(3, 7), [0], [(slice(0, 1), 1)]),
    ]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 8)), min_size=1, max_size=8))
def test_cells_cover_every_rectangle_once(shapes):
    covered = [torch.zeros(9, 8, dtype=torch.long) for _ in shapes]
    seen = torch.zeros(9, 8, dtype=torch.long)
    for band in bands(shapes):
        for across, count in band.cells:
            seen[band.rows, across] += 1
            for group in band.groups[:count]:
                covered[group][band.rows, across] += 1
    for (out, into), cells in zip(shapes, covered, strict=True):
        expected = torch.zeros(9, 8, dtype=torch.long)
        expected[:out, :into] = 1
        assert torch.equal(cells, expected)
    assert seen.max() <= 2


def test_few_channels_do_not_cut_the_others():
    """Groups 0 and 3 have under eight channels on a side; 1 and 2 do not see their cuts at 3 and 5."""
    assert list(bands([(11, 3), (11, 13), (9, 8), (5, 13)])) == [
        Band(slice(0, 5), [3, 0], [(slice(0, 3), 2), (slice(3, 13), 1)]),
        Band(slice(5, 11), [0], [(slice(0, 3), 1)]),
        Band(slice(0, 9), [1, 2], [(slice(0, 8), 2), (slice(8, 13), 1)]),
        Band(slice(9, 11), [1], [(slice(0, 13), 1)]),
    ]


def test_gradients_of_overlapping_parts_add_up():
    check([(11, 3), (11, 13), (9, 8), (5, 13)], [2, 3, 1, 5], size=(11, 13))


def test_literal_values():
    weight = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]])
    bias = torch.tensor([[0.5, 0.25], [-0.5, -0.25]])
    features = [torch.tensor([[1.0, -1.0]]), torch.tensor([[0.0, 2.0], [3.0, 1.0]])]
    first, second = leading_products(weight, bias, features, [(2, 1), (1, 2)])
    assert first.tolist() == [[[-0.5]], [[-1.5]]]
    assert second.tolist() == [[[4.5, 5.5], [8.25, 13.25]]]
