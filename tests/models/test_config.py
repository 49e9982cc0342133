import dataclasses
import json

import pytest

from ghn_pyg.models.config import PRESETS, GHNConfig


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ghn3tm8", ("ghn3", 64, 64, 16, 1000, 3, 8, "center")),
        ("ghn3sm8", ("ghn3", 128, 128, 16, 1000, 5, 16, "center")),
        ("ghn3lm8", ("ghn3", 256, 256, 16, 1000, 12, 16, "center")),
        ("ghn3xlm16", ("ghn3", 384, 384, 16, 1000, 24, 16, "center")),
        ("ghn2", ("ghn2", 32, 64, 16, 1000, 0, 0, "corner")),
        ("ghn1", ("ghn1", 32, 64, 16, 1000, 0, 0, "corner")),
        ("mlp", ("mlp", 32, 64, 16, 1000, 0, 0, "corner")),
    ],
)
def test_presets_have_the_published_sizes(name, expected):
    config = GHNConfig.preset(name)
    fields = ("encoder", "hidden_channels", "max_channels", "max_kernel_size", "num_classes", "layers", "heads")
    assert tuple(getattr(config, field) for field in (*fields, "kernel_crop")) == expected
    assert (config.decoder, config.final_norm, config.weight_norm) == ("conv", True, True)


def test_presets_can_be_changed():
    config = GHNConfig.preset("ghn3tm8", num_classes=10, max_kernel_size=11)
    assert (config.num_classes, config.max_kernel_size, config.layers) == (10, 11, 3)
    assert PRESETS["ghn3tm8"].num_classes == 1000


def test_unknown_presets_come_with_near_ones():
    with pytest.raises(ValueError, match=r"unknown preset 'ghn3tm9', expected one of ghn3tm8.*; did you mean ghn3tm8"):
        GHNConfig.preset("ghn3tm9")
    with pytest.raises(ValueError, match="did you mean ghn3tm8 or ghn3sm8 or ghn3lm8 or ghn3xlm16 or ghn"):
        GHNConfig.preset("ghn3")
    with pytest.raises(ValueError, match=r"unknown preset 'vgg', expected one of [a-z0-9, ]*$"):
        GHNConfig.preset("vgg")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"encoder": "ghn4"},
            r"GHNConfig\.encoder must be one of ghn3, ghn2, ghn1, mlp, .* got 'ghn4'; did you mean ghn3",
        ),
        ({"decoder": "linear"}, r"GHNConfig\.decoder must be one of \('conv', 'mlp'\), got 'linear'"),
        ({"kernel_crop": "middle"}, r"GHNConfig\.kernel_crop must be one of \('center', 'corner'\), got 'middle'"),
        ({"hidden_channels": 0}, "GHNConfig.hidden_channels must be an integer of at least 1, got 0"),
        ({"max_channels": -3}, "GHNConfig.max_channels must be an integer of at least 1, got -3"),
        ({"max_kernel_size": 11.0}, r"GHNConfig\.max_kernel_size must be an integer of at least 1, got 11\.0"),
        ({"num_classes": True}, "GHNConfig.num_classes must be an integer of at least 1, got True"),
        ({"layers": 0}, "GHNConfig.layers must be an integer of at least 1, got 0"),
        ({"heads": "8"}, "GHNConfig.heads must be an integer of at least 1, got '8'"),
        ({"encoder": "ghn2", "layers": -1}, "GHNConfig.layers must be an integer of at least 0, got -1"),
        ({"final_norm": 1}, "GHNConfig.final_norm must be true or false, got 1"),
        ({"weight_norm": None}, "GHNConfig.weight_norm must be true or false, got None"),
        ({"hidden_channels": 30}, r"GHNConfig\.hidden_channels must be a multiple of 4 .*, got 30"),
        ({"heads": 5}, "GHNConfig.hidden_channels must be a multiple of heads, got 64 and 5"),
    ],
)
def test_values_out_of_range(changes, message):
    with pytest.raises(ValueError, match=message):
        GHNConfig(**changes)


def test_heads_do_not_matter_without_attention():
    assert GHNConfig("ghn2", hidden_channels=32, layers=0, heads=5).heads == 5


@pytest.mark.parametrize("name", PRESETS)
def test_there_and_back_through_json(name):
    config = GHNConfig.preset(name, num_classes=13, weight_norm=False)
    assert GHNConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert list(config.to_dict()) == [field.name for field in dataclasses.fields(GHNConfig)]


def test_unknown_fields():
    with pytest.raises(ValueError, match=r"unknown GHNConfig fields \['depth', 'width'\], expected some of \['dec"):
        GHNConfig.from_dict({"width": 1, "depth": 2, "layers": 3})


def test_configurations_do_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        GHNConfig().layers = 5
