import pytest

from ghn_pyg.finetuning import FitConfig
from ghn_pyg.finetuning.config import RECIPES


def test_recipes():
    assert RECIPES["timm"].optimizer == "lamb"
    assert FitConfig.recipe("sgd", epochs=7) == RECIPES["sgd"].replace(epochs=7)
    assert FitConfig.recipe("timm").warmup_epochs == 5
    assert FitConfig.recipe("timm", epochs=3).warmup_epochs == pytest.approx(0.15)
    assert FitConfig.recipe("timm", epochs=20, warmup_epochs=2).warmup_epochs == 2
    with pytest.raises(ValueError, match="unknown recipe 'tim', expected one of sgd, adamw, timm; did you mean timm"):
        FitConfig.recipe("tim")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "FitConfig.epochs expected a value greater than 0, got 0"),
        ({"optimizer": "adam"}, "optimizer expected 'sgd', 'adamw' or 'lamb'"),
        ({"learning_rate": -1}, "learning_rate expected a value greater than or equal to 0"),
        ({"randaugment": 31}, "randaugment expected a value less than or equal to 30, got 31"),
        ({"label_smoothing": 1.0}, "label_smoothing expected a value less than 1"),
        ({"schedule": "steps"}, "milestones expected epochs with the schedule steps"),
        ({"milestones": [3]}, r"milestones expected epochs with the schedule steps alone, got \[3"),
        ({"patience": -1}, "patience expected a value greater than or equal to 0"),
        ({"warmup_epochs": 3}, "warmup_epochs expected at most the 1 epochs"),
    ],
)
def test_faulty_values(changes, message):
    with pytest.raises(ValueError, match=message):
        FitConfig(**changes)
