import json

import pytest

from ghn_pyg import GHNConfig
from ghn_pyg.deepnets.widths import Bound, WidthRule
from ghn_pyg.training.config import RECIPES, TrainConfig
from ghn_pyg.training.schedules import learning_rate
from tests.training.tiny import GHN3, config


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ghn2-cifar10", ("adam", 1e-3, 1e-5, "steps", 300, 64, 8, 0, 0)),
        ("ghn2-imagenet", ("adam", 1e-3, 1e-5, "steps", 150, 256, 8, 0, 0.1)),
        ("ghn3-t-cifar10", ("adamw", 4e-4, 1e-2, "cosine", 300, 64, 8, 3e-5, 0)),
        ("ghn3-xl-imagenet", ("adamw", 4e-4, 1e-2, "cosine", 75, 128, 16, 3e-5, 0.1)),
    ],
)
def test_published_recipes(name, expected):
    one = TrainConfig.recipe(name)
    figures = (
        one.optimizer, one.learning_rate, one.weight_decay, one.schedule, one.epochs, one.batch_size, one.meta_batch,
        one.penalty, one.label_smoothing,
    )  # fmt: skip
    assert figures == expected
    assert one.clip == 5
    assert one.ghn.num_classes == (1000 if name.endswith("imagenet") else 10)


def test_recipes_can_be_changed():
    assert TrainConfig.recipe("ghn3-t-cifar10", epochs=7).epochs == 7
    with pytest.raises(ValueError, match=r"unknown recipe 'ghn3-t-cifar'; did you mean ghn3-t-cifar10"):
        TrainConfig.recipe("ghn3-t-cifar")
    with pytest.raises(ValueError, match=r"unknown recipe 'q'; expected one of ghn3-t-cifar10"):
        TrainConfig.recipe("q")


@pytest.mark.parametrize("one", [*RECIPES.values(), config()], ids=[*RECIPES, "tiny"])
def test_as_plain_values_and_back(one):
    assert TrainConfig.from_dict(json.loads(json.dumps(one.to_dict()))) == one


def test_missing_values_have_defaults():
    values = {"ghn": {"num_classes": 7}, "widths": {"widths": [8, 16], "bounds": [[11, 13, 1]]}}
    one = TrainConfig.from_dict(values)
    assert one.ghn == GHNConfig(num_classes=7)
    assert one.widths == WidthRule(widths=(8, 16), bounds=(Bound(11, 13, 1),))
    assert one.epochs == 300


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "TrainConfig.ghn is missing"),
        ({"ghn": {}, "epoch": 3}, "TrainConfig has no field 'epoch'; did you mean epochs"),
        ({"ghn": {}, "qqq": 3}, "has no field 'qqq'; expected some of ghn, images"),
        ({"ghn": {}, "widths": {"width": [8]}}, "WidthRule has no field 'width'; did you mean widths"),
        ({"ghn": {"layer": 3}}, "unknown GHNConfig fields"),
        ({"ghn": {}, "epochs": 0}, "TrainConfig.epochs expected an integer of at least 1, got 0"),
        ({"ghn": {}, "meta_batch": 2.5}, "meta_batch expected an integer"),
        ({"ghn": {}, "clip": float("nan")}, "clip expected a number of at least 0, got nan"),
        ({"ghn": {}, "learning_rate": "fast"}, "learning_rate expected a number"),
        ({"ghn": {}, "optimizer": "sgd"}, "optimizer expected one of adam, adamw, got 'sgd'"),
        ({"ghn": {}, "label_smoothing": 1}, "label_smoothing expected a number below 1"),
        ({"ghn": {}, "epochs": 3}, "warmup_epochs expected no more than the 3 epochs, got 5"),
    ],
)
def test_faulty_values(values, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig.from_dict(values)


def test_a_cosine_with_a_warm_up():
    one = TrainConfig(ghn=GHN3, learning_rate=0.5, warmup_rate=0.1, warmup_epochs=2, epochs=10)
    rates = [learning_rate(one, step, 7) for step in (0, 7, 14, 14 + 28, 70)]
    assert rates == pytest.approx([0.1, 0.3, 0.5, 0.25, 0])


def test_no_warm_up():
    assert learning_rate(config(learning_rate=0.5), 0, 7) == 0.5


def test_steps():
    one = TrainConfig(ghn=GHN3, learning_rate=0.5, schedule="steps", milestones=(2, 3), epochs=10)
    rates = [learning_rate(one, step, 7) for step in (0, 13, 14, 20, 21, 69)]
    assert rates == pytest.approx([0.5, 0.5, 0.05, 0.05, 0.005, 0.005])
