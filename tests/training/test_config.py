import json

import pytest
import torch

from ghn_pyg import GHN, GHNConfig
from ghn_pyg.families.deepnets.width_sampling import CIFAR, IMAGENET, Bound, WidthRule
from ghn_pyg.training import TrainConfig, load_config, recipe_costs, recipe_names
from tests.training.tiny import config

# Published recipes, one row for each kind of GHN and image data.
FIELDS = (
    "optimizer", "learning_rate", "weight_decay", "schedule", "milestones", "warmup_epochs", "warmup_rate", "penalty",
    "clip", "precision", "epochs", "batch_size", "label_smoothing", "image_size",
)  # fmt: skip
ADAM = ("adam", 1e-3, 1e-5, "steps")
ADAMW = ("adamw", 4e-4, 1e-2, "cosine", None, 5, 1e-5, 3e-5, 5, "16-mixed")  # a cosine has no milestones
PUBLISHED = {
    "ghn2-cifar10": (*ADAM, (200, 250), 0, None, 0, 5, "32-true", 300, 64, 0, None),
    "ghn2-imagenet": (*ADAM, (100, 125), 0, None, 0, 5, "32-true", 150, 256, 0.1, 224),
    "ghn3-cifar10": (*ADAMW, 300, 64, 0, None),
    "ghn3-imagenet": (*ADAMW, 75, 128, 0.1, 224),
}
# Recipe, its row, preset of its GHN, meta-batch.
RECIPES = [
    ("mlp", "ghn2", "mlp", 8), ("ghn1", "ghn2", "ghn1", 8), ("ghn2", "ghn2", "ghn2", 8),
    ("ghn3-t", "ghn3", "ghn3tm8", 8), ("ghn3-s", "ghn3", "ghn3sm8", 8), ("ghn3-l", "ghn3", "ghn3lm8", 8),
    ("ghn3-xl", "ghn3", "ghn3xlm16", 16),
]  # fmt: skip


@pytest.mark.parametrize("images", ["cifar10", "imagenet"])
@pytest.mark.parametrize(("name", "row", "preset", "meta_batch"), RECIPES)
def test_published_recipes(name, row, preset, meta_batch, images):
    recipe = load_config(f"{name}-{images}")
    unused = ("milestones",) if recipe.schedule == "cosine" else ("warmup_rate",)
    values = tuple(None if field in unused else getattr(recipe, field) for field in FIELDS)
    assert values == PUBLISHED[f"{row}-{images}"]
    assert (recipe.images, recipe.meta_batch) == (images, meta_batch)
    small = {"num_classes": 10, "max_kernel_size": 11} if images == "cifar10" else {}
    assert recipe.ghn == GHNConfig.preset(preset, **small)
    assert recipe.widths == (CIFAR if small else IMAGENET)
    # What is not published is off.
    assert (recipe.balance, recipe.calibrate, recipe.curriculum, recipe.ema, recipe.start) == (False, False, 0, 0, None)


def test_recipe_names():
    published = {f"{name}-{images}" for name, *_ in RECIPES for images in ("cifar10", "imagenet")}
    assert published == {name for name in recipe_names() if not name.startswith("digits")}


IMAGES = {"digits": 1442, "cifar10": 50_000, "imagenet": 1_281_167}


@pytest.mark.parametrize("name", recipe_names())
def test_what_a_recipe_costs(name):
    recipe, cost = load_config(name), recipe_costs()[name]
    images = IMAGES[recipe.images] - int(recipe.held_out * IMAGES[recipe.images])
    assert cost.steps == recipe.epochs * (images // recipe.batch_size)
    with torch.device("meta"):
        assert cost.parameters == sum(weight.numel() for weight in GHN(recipe.ghn).parameters())
    assert cost.memory > 4 * 4 * cost.parameters / 1e9  # weights, gradients, two moments


@pytest.mark.parametrize("recipe", [*map(load_config, recipe_names()), config()], ids=[*recipe_names(), "tiny"])
def test_plain_values_and_back(recipe):
    assert TrainConfig.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_changes_of_a_recipe():
    changes = ["epochs=7", "ghn.layers=5", "learning_rate=1e-3", "widths={widths: [8, 16]}", "images=cifar100"]
    changed = load_config("ghn3-t-cifar10", changes)
    assert (changed.epochs, changed.ghn.layers, changed.ghn.max_kernel_size, changed.learning_rate) == (7, 5, 11, 1e-3)
    assert (changed.widths, changed.images) == (WidthRule(widths=(8, 16)), "cifar100")
    assert load_config("digits", ["folder=3e2abc"]).folder == "3e2abc"


def test_a_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "ghn: {preset: mlp, num_classes: 7}\nlearning_rate: 1e-2\nmilestones: [3, 5]\n"
        "widths: {widths: [8, 16], bounds: [[11, 13, 1]]}"
    )
    mine = load_config(path, ["schedule=steps"])
    assert mine.ghn == GHNConfig.preset("mlp", num_classes=7)
    assert (mine.learning_rate, mine.milestones, mine.schedule, mine.epochs) == (0.01, (3, 5), "steps", 300)
    assert mine.widths == WidthRule(widths=(8, 16), bounds=(Bound(11, 13, 1),))


@pytest.mark.parametrize(
    ("source", "changes", "message"),
    [
        ("ghn3-t-cifar", [], "there is no recipe 'ghn3-t-cifar'; did you mean ghn3-t-cifar10"),
        ("q", [], "there is no recipe 'q'; expected a YAML file or one of .*ghn3-t-cifar10"),
        ("ghn3-t-cifar10", ["widths.hidden=[3]"], "changes a field of widths, which is 'cifar'"),
        ("ghn3-t-cifar10", ["ghn.layer=3"], "GHNConfig.*'layer'"),
        ("digits", ["start=digits"], "TrainConfig.calibrate expected false"),
    ],
)
def test_faulty_sources_and_changes(source, changes, message):
    with pytest.raises(ValueError, match=message):
        load_config(source, changes)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "TrainConfig.ghn is missing"),
        ({"ghn": 3}, "TrainConfig.ghn expected .*GHNConfig, got 3"),
        ({"ghn": {"preset": "ghn3"}}, "unknown preset 'ghn3', expected one of .*did you mean ghn3tm8"),
        ({"epoch": 3}, "TrainConfig has no field 'epoch'; did you mean epochs"),
        ({3: 3}, "has no field '3'; expected one of ghn, start"),
        ({"start": 3}, "start expected a valid string, got 3"),
        ({"epochs": 0}, "epochs expected a value greater than 0, got 0"),
        ({"meta_batch": 2.5}, "meta_batch expected a valid integer"),
        ({"clip": float("nan")}, "clip expected a finite number, got nan"),
        ({"learning_rate": "fast"}, "learning_rate expected a valid number"),
        ({"optimizer": "rmsprop"}, "optimizer expected 'adam', 'adamw', 'sgd' or 'lamb', got 'rmsprop'"),
        ({"split": "val"}, "split expected one of train, test, wide, deep, dense, bnfree, search, got 'val'"),
        ({"normalization": [[0.5] * 3, [0.0, 1, 1]]}, "normalization"),
        ({"milestones": [True]}, "milestones.0 expected a valid integer, got True"),
        ({"milestones": [5, 3]}, "milestones expected ascending epochs"),
        ({"widths": "mnist"}, "unknown rule 'mnist'; expected one of cifar, imagenet"),
        ({"widths": {"width": [8]}}, "WidthRule has no field 'width'; did you mean widths"),
        ({"widths": {"widths": 3}}, "widths expected"),
        ({"widths": {"bounds": [3]}}, "bounds"),
        ({"widths": {"bounds": [["800000", 12, 1]]}}, "bounds"),
        ({"balance": 1}, "balance expected a valid boolean"),
        ({"balance": True, "precision": "16-mixed"}, "balance expected false with 16-mixed"),
        ({"curriculum": 1.5}, "curriculum expected a value less than or equal to 1"),
        ({"ema": 1.0}, "ema expected a value less than 1"),
        ({"epochs": 3}, "warmup_epochs expected at most the 3 epochs, got 5"),
    ],
)
def test_faulty_values(values, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig.from_dict(values if not values or "ghn" in values else {"ghn": {}, **values})
