import pytest
import torch

from ghn_pyg.training.cost import measure_cost
from ghn_pyg.training.fabric import make_fabric
from tests.training.tiny import assert_equal, config, digits, free_port, rank_environment, run, start


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


def measured_on_a_rank(folder):
    fabric = make_fabric(device="cpu")
    cost = measure_cost(config(epoch_steps=5), digits(), fabric, steps=2)
    (folder / f"{fabric.global_rank}.txt").write_text(f"{cost.steps} {cost.seconds} {cost.memory}")


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs gloo")
def test_processes_measure_the_same(tmp_path):
    """Ranks that disagree on the length of a run would wait for each other for ever."""
    port = free_port()
    ranks = [start(measured_on_a_rank, tmp_path, **rank_environment(rank, 2, port)) for rank in range(2)]
    for rank in ranks:
        rank.join(120)
    assert [rank.exitcode for rank in ranks] == [0, 0]
    assert (tmp_path / "0.txt").read_text() == (tmp_path / "1.txt").read_text()
