import pytest

from ghn_pyg.finetuning import FitConfig
from ghn_pyg.finetuning.train_network import fit_learning_rate
from ghn_pyg.training.learning_rate import learning_rate
from tests.training.tiny import config


@pytest.mark.parametrize(
    ("changes", "rates"),
    [
        ({"warmup_rate": 0.1, "warmup_epochs": 2}, {0: 0.1, 7: 0.3, 14: 0.5, 42: 0.25, 70: 0}),
        ({"warmup_epochs": 0}, {0: 0.5, 35: 0.25}),
        ({"schedule": "steps", "milestones": (2, 3), "warmup_epochs": 5},
         {0: 0.5, 13: 0.5, 14: 0.05, 20: 0.05, 21: 0.005, 69: 0.005}),
    ],
    ids=["warm-up and cosine", "cosine", "steps"],
)  # fmt: skip
def test_meta_training(changes, rates):
    run = config(epochs=10, learning_rate=0.5, **changes)
    assert [learning_rate(run, step, 7) for step in rates] == pytest.approx([*rates.values()])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"schedule": "constant"}, [0.3, 0.6, 0.6, 0.6, 0.6, 0.6]),
        ({"schedule": "steps", "milestones": (1.5, 2.5)}, [0.3, 0.6, 0.6, 0.06, 0.06, 0.006]),
    ],
    ids=["constant", "steps"],
)
def test_schedules_of_fine_tuning(changes, expected):
    config = FitConfig(epochs=3, warmup_epochs=1, learning_rate=0.6, **changes)
    assert [fit_learning_rate(config, step, 2) for step in range(6)] == pytest.approx(expected)


def test_fine_tuning():
    """The last step of the warm-up has the peak learning rate, also within an epoch."""
    config = FitConfig(epochs=5, warmup_epochs=1.5, learning_rate=0.6)
    rates = [fit_learning_rate(config, step, 2) for step in range(10)]
    assert rates[:4] == pytest.approx([0.2, 0.4, 0.6, 0.6])
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert 0 < rates[-1] < 0.05
