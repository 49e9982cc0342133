import json

import pytest

from ghn_pyg import GHNConfig
from ghn_pyg.families.deepnets.widths import CIFAR, IMAGENET, Bound, WidthRule
from ghn_pyg.training.config import TrainConfig, load_config, recipe_names
from ghn_pyg.utils.yaml_config import read_fields
from tests.training.tiny import config

# What is published, one row for each kind of GHN and image data.
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
# Recipe, whose row it has, preset of its GHN, meta-batch.
RECIPES = [
    ("mlp", "ghn2", "mlp", 8), ("ghn1", "ghn2", "ghn1", 8), ("ghn2", "ghn2", "ghn2", 8),
    ("ghn3-t", "ghn3", "ghn3tm8", 8), ("ghn3-s", "ghn3", "ghn3sm8", 8), ("ghn3-l", "ghn3", "ghn3lm8", 8),
    ("ghn3-xl", "ghn3", "ghn3xlm16", 16),
]  # fmt: skip


@pytest.mark.parametrize("images", ["cifar10", "imagenet"])
@pytest.mark.parametrize(("name", "like", "preset", "meta_batch"), RECIPES)
def test_published_recipes(name, like, preset, meta_batch, images):
    one = load_config(f"{name}-{images}")
    row = dict(zip(FIELDS, PUBLISHED[f"{like}-{images}"], strict=True))
    unused = ("milestones",) if one.schedule == "cosine" else ("warmup_rate",)
    assert {field: None if field in unused else getattr(one, field) for field in FIELDS} == row
    assert (one.images, one.meta_batch) == (images, meta_batch)
    small = {"num_classes": 10, "max_kernel_size": 11} if images == "cifar10" else {}
    assert one.ghn == GHNConfig.preset(preset, **small)
    assert (one.ghn.num_classes, one.ghn.max_kernel_size) == ((10, 11) if small else (1000, 16))
    assert one.widths == (CIFAR if small else IMAGENET)
    # What is not published is off.
    assert (one.balance, one.calibrate, one.curriculum, one.ema, one.start) == (False, False, 0, 0, None)


def test_every_published_recipe_is_there():
    assert {f"{name}-{images}" for name, *_ in RECIPES for images in ("cifar10", "imagenet")} == {
        name for name in recipe_names() if not name.startswith("digits")
    }


def test_changes():
    changes = ["epochs=7", "ghn.layers=5", "learning_rate=1e-3", "widths={widths: [8, 16]}", "images=cifar100"]
    one = load_config("ghn3-t-cifar10", changes)
    assert (one.epochs, one.ghn.layers, one.ghn.max_kernel_size, one.learning_rate) == (7, 5, 11, 1e-3)
    assert load_config("digits", ["folder=3e2abc"]).folder == "3e2abc"
    assert (one.widths, one.images) == (WidthRule(widths=(8, 16)), "cifar100")


def test_own_files(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("ghn: {preset: mlp, num_classes: 7}\nlearning_rate: 1e-2\nmilestones: [3, 5]\n")
    one = load_config(path, ["schedule=steps"])
    assert one.ghn == GHNConfig.preset("mlp", num_classes=7)
    assert (one.learning_rate, one.milestones, one.schedule) == (0.01, (3, 5), "steps")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 3", "holds no fields, expected lines such as epochs: 300"),
        ("", "holds no fields"),
        ("a: [", "cannot read the configuration .*mine.yaml: while parsing"),
        ("ghn: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("ghn: {preset: ghn3}", "unknown preset 'ghn3', expected one of .*did you mean ghn3tm8 or ghn3sm8 or"),
        ("ghn: 3", "TrainConfig.ghn expected fields of GHNConfig, or a preset and changes to it, got 3"),
        ("ghn: {}\nwidths: mnist", "TrainConfig.widths expected one of cifar, imagenet or fields of WidthRule"),
    ],
)
def test_faulty_files(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_config(path)


@pytest.mark.parametrize(
    ("source", "changes", "message"),
    [
        ("ghn3-t-cifar", [], "there is no recipe 'ghn3-t-cifar'; did you mean ghn3-t-cifar10"),
        ("q", [], "there is no recipe 'q'; expected a YAML file or one of .*ghn3-t-cifar10"),
        ("missing.yaml", [], "cannot read the configuration missing.yaml: .*No such file"),
        ("ghn3-t-cifar10", ["epochs"], "written name=value, got 'epochs'"),
        ("ghn3-t-cifar10", ["epochs=["], r"cannot read the value of 'epochs=\['"),
        ("ghn3-t-cifar10", ["seed=2020-13-45"], "cannot read the value of 'seed=2020-13-45': month"),
        ("ghn3-t-cifar10", ["start=3"], "TrainConfig.start expected the name or folder of a GHN, or nothing, got 3"),
        ("digits", ["start=digits"], "TrainConfig.calibrate expected false, as calibration is for new weights"),
        ("ghn3-t-cifar10", ["epoch=3"], "no field 'epoch'; did you mean epochs"),
        ("ghn3-t-cifar10", ["ghn.layer=3"], "GHNConfig has no field 'layer'; did you mean layers"),
        ("ghn3-t-cifar10", ["widths.hidden=[3]"], "changes a part of widths, which is 'cifar'; give the whole of it"),
    ],
)
def test_faulty_names_and_changes(source, changes, message):
    with pytest.raises(ValueError, match=message):
        load_config(source, changes)


@pytest.mark.parametrize("one", [*map(load_config, recipe_names()), config()], ids=[*recipe_names(), "tiny"])
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
        ({"ghn": {}, "qqq": 3}, "has no field 'qqq'; expected one of ghn, start"),
        ({"ghn": {}, "widths": {"width": [8]}}, "WidthRule has no field 'width'; did you mean widths"),
        ({"ghn": {"layer": 3}}, "GHNConfig has no field 'layer'; did you mean layers"),
        ({"ghn": {}, "epochs": 0}, "TrainConfig.epochs expected an integer of at least 1, got 0"),
        ({"ghn": {}, "meta_batch": 2.5}, "meta_batch expected an integer"),
        ({"ghn": {}, "clip": float("nan")}, "clip expected a number of at least 0, got nan"),
        ({"ghn": {}, "learning_rate": "fast"}, "learning_rate expected a number"),
        ({"ghn": {}, "optimizer": "sgd"}, "optimizer expected one of adam, adamw, got 'sgd'"),
        ({"ghn": {}, "milestones": 3}, "milestones expected ascending numbers of epochs, got 3"),
        ({"ghn": {}, "milestones": ["a"]}, "milestones expected ascending numbers of epochs"),
        ({"ghn": {}, "milestones": [True, True]}, "milestones expected ascending numbers of epochs"),
        ({"ghn": {}, "milestones": [5, 3]}, "milestones expected ascending numbers of epochs"),
        ({"ghn": {}, "images": 3}, "images expected a text, got 3"),
        ({"ghn": {}, "folder": 300.0}, "folder expected a text, got 300.0"),
        ({"ghn": {}, "image_size": "abc"}, "image_size expected a number of pixels"),
        ({"ghn": {}, "widths": {"widths": 3}}, "widths expected lists of numbers"),
        ({"ghn": {}, "widths": {"widths": ["a"]}}, "widths expected"),
        ({"ghn": {}, "widths": {"bounds": [3]}}, "bounds as lists of three"),
        ({"ghn": {}, "widths": {"bounds": [["800000", 12, 1]]}}, "bounds expected three positive integers"),
        ({"ghn": {}, "widths": {"strides": "off"}}, "WidthRule.strides expected true or false, got 'off'"),
        ({"ghn": {"preset": 3}}, "unknown preset '3'"),
        ({"ghn": {}, "balance": 1}, "balance expected true or false"),
        ({"ghn": {}, "balance": True, "precision": "16-mixed"}, "balance expected false with 16-mixed"),
        ({"ghn": {}, "curriculum": 1.5}, "curriculum expected a share of the run"),
        ({"ghn": {}, "ema": 1.0}, "ema expected a number below 1, got 1.0"),
        ({"ghn": {}, "label_smoothing": 1}, "label_smoothing expected a number below 1"),
        ({"ghn": {}, "epochs": 3}, "warmup_epochs expected no more than the 3 epochs, got 5"),
    ],
)
def test_faulty_values(values, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig.from_dict(values)


@pytest.mark.parametrize(("field", "value"), [("ghn", {"layers": 3}), ("widths", "cifar")])
def test_parts_of_the_wrong_kind(field, value):
    with pytest.raises(ValueError, match=rf"TrainConfig\.{field} expected a (GHNConfig|WidthRule), got "):
        TrainConfig(**{"ghn": GHNConfig(), field: value})


def test_changes_of_fields_that_share_an_alias(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("one: &shared {size: 3}\nother: *shared\nempty:\nzero: 0\n")
    assert read_fields(path, ["one.size=5", "empty.size=7"]) == {
        "one": {"size": 5}, "other": {"size": 3}, "empty": {"size": 7}, "zero": 0
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"'zero\.size=5' changes a part of zero, which is 0; give the whole of it"):
        read_fields(path, ["zero.size=5"])
