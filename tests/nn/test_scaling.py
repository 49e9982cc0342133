import math

import pytest
import torch

from ghn_pyg.nn.scaling import scale_bias, scale_gain, weight_scale
from tests.properties import assert_close, assert_pure


@pytest.mark.parametrize(
    ("shape", "beta", "fan_in"),
    [
        ((64, 3, 7, 7), 2, 147),
        ((13, 17, 1, 1), 2, 17),
        ((13, 1, 3, 3), 1, 9),  # depthwise
        ((13, 1, 5, 3), 1, 15),
        ((13, 17, 1, 7), 1, 119),  # lower than wide
        ((13, 17, 7, 1), 2, 119),
        ((13, 17, 3, 5), 1, 255),
        ((1, 1, 1, 1), 1, 1),
        ((13, 17), 2, 17),
        ((13, 1), 2, 1),
        ((13, 17, 3), 2, 51),
        ((13, 1, 3), 2, 3),
        ((13, 17, 3, 5, 7), 2, 1785),
        ((13, 1, 3, 5, 7), 2, 105),
        ((13,), 2, 1),
    ],
)
def test_weights(shape, beta, fan_in):
    assert weight_scale(shape) == pytest.approx(math.sqrt(beta / fan_in), rel=1e-15)
    assert weight_scale(torch.Size(shape)) == weight_scale(shape)


def test_literal_factors():
    assert weight_scale((64, 3, 7, 7)) == pytest.approx(0.11664236870396087)
    assert weight_scale((32, 1, 3, 3)) == pytest.approx(1 / 3)
    assert weight_scale((1000, 512)) == 0.0625


def test_gains():
    result = scale_gain(torch.tensor([-100.0, -2.0, 0.0, 1.0, 2.0, 100.0]))
    torch.testing.assert_close(result, torch.tensor([0.0, 0.5378828, 1.0, 1.2449187, 1.4621172, 2.0]))


def test_biases():
    result = scale_bias(torch.tensor([-100.0, -5.0, 0.0, 1.0, 5.0, 100.0]))
    torch.testing.assert_close(result, torch.tensor([-1.0, -0.7615942, 0.0, 0.1973753, 0.7615942, 1.0]))


@pytest.mark.parametrize(
    ("function", "formula"),
    [(scale_gain, lambda w: 2 / (1 + math.exp(-w / 2))), (scale_bias, lambda b: math.tanh(b / 5))],
)
def test_formulas(function, formula):
    values = torch.randn(13, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) * 7
    assert_close(function(values), torch.tensor([formula(value) for value in values.tolist()], dtype=torch.float64))
    assert_pure(function, values)
    assert function(values.bfloat16()).dtype == torch.bfloat16
    assert torch.autograd.gradcheck(function, values.requires_grad_())
