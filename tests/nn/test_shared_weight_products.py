import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ghn_pyg.nn.shared_weight_products import Band, bands, leading_products
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


def test_more_rows_than_one_part():
    check([(131, 2), (64, 3), (65, 1)], [2, 3, 5], size=(131, 3))


def test_gradients_of_gradients():
    shapes = SHAPES["crossing"]
    weight, bias, features = inputs(shapes, [2, 1])
    assert torch.autograd.gradgradcheck(
        lambda w, b, *x: [one.tanh() for one in leading_products(w, b, x, shapes)], (weight, bias, *features)
    )


def test_inputs_are_not_changed():
    weight, bias, features = inputs([(7, 2), (3, 5)], [2, 3])
    arguments = [weight.detach(), bias.detach(), [rows.detach() for rows in features]]
    assert_pure(lambda *values: leading_products(*values, [(7, 2), (3, 5)]), *arguments)


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


def test_literal_values():
    weight = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]])
    bias = torch.tensor([[0.5, 0.25], [-0.5, -0.25]])
    features = [torch.tensor([[1.0, -1.0]]), torch.tensor([[0.0, 2.0], [3.0, 1.0]])]
    first, second = leading_products(weight, bias, features, [(2, 1), (1, 2)])
    assert first.tolist() == [[[-0.5]], [[-1.5]]]
    assert second.tolist() == [[[4.5, 5.5], [8.25, 13.25]]]
