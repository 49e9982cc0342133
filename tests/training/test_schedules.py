import pytest
from ghn_pyg.training.schedules import average_decay, learning_rate

from ghn_pyg.training.config import TrainConfig
from tests.training.tiny import GHN3, config


def test_a_cosine_with_a_warm_up():
    one = TrainConfig(ghn=GHN3, learning_rate=0.5, warmup_rate=0.1, warmup_epochs=2, epochs=10)
    rates = [learning_rate(one, step, 7) for step in (0, 7, 14, 14 + 28, 70)]
    assert rates == pytest.approx([0.1, 0.3, 0.5, 0.25, 0])


def test_steps_have_no_warm_up():
    one = TrainConfig(ghn=GHN3, learning_rate=0.5, schedule="steps", milestones=(2,), epochs=3)
    assert one.warmup_epochs == 5
    assert learning_rate(one, 0, 7) == 0.5


def test_no_warm_up():
    assert learning_rate(config(learning_rate=0.5), 0, 7) == 0.5


def test_steps():
    one = TrainConfig(ghn=GHN3, learning_rate=0.5, schedule="steps", milestones=(2, 3), epochs=10)
    rates = [learning_rate(one, step, 7) for step in (0, 13, 14, 20, 21, 69)]
    assert rates == pytest.approx([0.5, 0.5, 0.05, 0.05, 0.005, 0.005])


def test_a_moving_average_forgets_its_first_weights():
    decays = [average_decay(0.75, steps) for steps in (0, 1, 8, 25, 26, 27, 10**6)]
    assert decays == pytest.approx([1 / 10, 2 / 11, 9 / 18, 26 / 35, 0.75, 0.75, 0.75])
