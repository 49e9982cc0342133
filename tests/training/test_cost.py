import pytest
import torch

from ghn_pyg.training.cost import measure_cost
from ghn_pyg.training.fabric import make_fabric
from tests.training.tiny import assert_equal, config, digits, run


def test_what_a_run_costs_is_measured_without_an_effect_on_it(tmp_path):
    changes = {"curriculum": 1.0, "epoch_steps": 2}
    expected = run(tmp_path / "whole", 2, changes)
    images, fabric = digits(), make_fabric(device="cpu")
    before = torch.get_rng_state()
    cost = measure_cost(config(**changes), images, fabric, steps=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert cost.steps == 20
    assert 0 < cost.seconds < 60
    assert cost.minutes == pytest.approx(cost.seconds / 3)
    assert 1e8 < cost.memory < 1e11
    assert_equal(run(tmp_path / "measured", 2, changes, images=images, fabric=fabric), expected)
