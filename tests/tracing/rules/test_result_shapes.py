"""Every function with a rule gives a tensor of the shape and type that PyTorch computes, or refuses what it refuses."""

import pytest
import torch
from torch import Tensor, nn

from ghn_pyg.tracing.tracer import RULES
from tests.tracing.helpers import assert_refused, assert_same_shapes, calls, functions_called
from tests.tracing.rules import cases_of_layers, cases_of_values

CASES = [*cases_of_values.CASES, *cases_of_layers.CASES]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
@calls(CASES)
def test_the_shape_is_what_pytorch_computes(function, args, kwargs):
    assert_same_shapes(function, args, kwargs)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
def test_every_rule_has_a_case():
    cases = [*CASES, (nn.MultiheadAttention(6, 2).forward, (torch.rand(3, 1, 6),) * 3, {})]
    others = ("recurrent", "gradients", "data_dependent")  # of which the shape is an assumption, or there is none
    of_tests = {f for f, rule in RULES.items() if rule.__module__.endswith(others) or f == Tensor.cuda}
    extensions = {function for function in RULES if isinstance(function, str)}
    assert set(RULES) - of_tests - extensions - functions_called(cases) == set()


@calls([*cases_of_values.REFUSED, *cases_of_layers.REFUSED])
def test_what_pytorch_refuses_fails(function, args, kwargs):
    assert_refused(function, args, kwargs)
