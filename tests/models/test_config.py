import json

import pytest

from ghn_pyg import PRESETS, GHNConfig


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ghn3tm8", ("ghn3", 64, 64, 3, 8, "center")),
        ("ghn3sm8", ("ghn3", 128, 128, 5, 16, "center")),
        ("ghn3lm8", ("ghn3", 256, 256, 12, 16, "center")),
        ("ghn3xlm16", ("ghn3", 384, 384, 24, 16, "center")),
        ("ghn2", ("ghn2", 32, 64, 0, 0, "corner")),
        ("ghn1", ("ghn1", 32, 64, 0, 0, "corner")),
        ("mlp", ("mlp", 32, 64, 0, 0, "corner")),
    ],
)
def test_presets_have_the_published_sizes(name, expected):
    config = GHNConfig.preset(name)
    fields = ("encoder", "hidden_channels", "max_channels", "layers", "heads", "kernel_crop")
    assert tuple(getattr(config, field) for field in fields) == expected
    assert (config.max_kernel_size, config.num_classes) == (16, 1000)
    assert (config.decoder, config.final_norm, config.weight_norm) == ("conv", True, True)


def test_presets_can_be_changed():
    config = GHNConfig.preset("ghn3tm8", num_classes=10, max_kernel_size=11)
    assert (config.num_classes, config.max_kernel_size, config.layers) == (10, 11, 3)
    assert PRESETS["ghn3tm8"].num_classes == 1000


def test_unknown_presets_come_with_similar_ones():
    with pytest.raises(ValueError, match=r"unknown preset 'ghn3tm9', expected one of ghn3tm8.*; did you mean ghn3tm8"):
        GHNConfig.preset("ghn3tm9")
    with pytest.raises(ValueError, match=r"unknown preset 'vgg', expected one of [a-z0-9, ]*$"):
        GHNConfig.preset("vgg")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": "ghn4"}, r"GHNConfig\.encoder expected one of ghn3, ghn2, ghn1, mlp, .*; did you mean ghn3"),
        ({"encoder": "unheard of"}, "register your own with register_encoder, in a module for --import, got 'unheard"),
        ({"encoder": ["ghn3"]}, "GHNConfig.encoder expected a valid string"),
        ({"decoder": "linear"}, "GHNConfig.decoder expected 'conv' or 'mlp', got 'linear'"),
        ({"kernel_crop": "middle"}, "GHNConfig.kernel_crop expected 'center' or 'corner', got 'middle'"),
        ({"hidden_channels": 0}, "GHNConfig.hidden_channels expected a value greater than 0, got 0"),
        ({"hidden_channels": 30}, "GHNConfig.hidden_channels expected a multiple of 4, got 30"),
        ({"max_channels": -3}, "GHNConfig.max_channels expected a value greater than 0, got -3"),
        ({"max_kernel_size": 11.0}, r"GHNConfig\.max_kernel_size expected a valid integer, got 11\.0"),
        ({"num_classes": True}, "GHNConfig.num_classes expected a valid integer, got True"),
        ({"num_classes": 10**15}, "GHNConfig.num_classes expected a value less than or equal to 10000000, got 1000000"),
        ({"layers": 10**6}, "GHNConfig.layers expected a value less than or equal to 200, got 1000000"),
        ({"max_kernel_size": 10**9}, "GHNConfig.max_kernel_size expected a value less than or equal to 256, got 1000"),
        ({"num_classes": "10"}, "GHNConfig.num_classes expected a valid integer, got '10'"),
        ({"weight_norm": None}, "GHNConfig.weight_norm expected a valid boolean, got None"),
        ({"layers": 0}, "GHNConfig.layers expected at least 1 for the encoder 'ghn3'"),
        ({"heads": 0}, "GHNConfig.heads expected at least 1 for the encoder 'ghn3'"),
        ({"heads": 5}, "GHNConfig.hidden_channels expected a multiple of heads, got 64 and 5"),
        ({"encoder": "gcn", "layers": 0}, "GHNConfig.layers expected at least 1 for the encoder 'gcn'"),
        ({"encoder": "gps", "heads": 0}, "GHNConfig.heads expected at least 1 for the encoder 'gps'"),
        ({"encoder": "ghn2", "heads": -1}, "GHNConfig.heads expected a value greater than or equal to 0, got -1"),
        ({"width": 1}, "GHNConfig has no field 'width'"),
    ],
)
def test_bad_values(changes, message):
    with pytest.raises(ValueError, match=message):
        GHNConfig(**changes)


def test_heads_do_not_matter_without_attention():
    assert GHNConfig(encoder="ghn2", hidden_channels=32, layers=0, heads=5).heads == 5


def test_what_a_ghn_was_trained_for():
    trained_for = {"data": "ants", "image_size": 19, "mean": [0.3, 0.5, 0.7], "std": [0.2] * 3,
                   "classes": ["ant", "bee"], "widths": [8, 24, 48], "family": "deepnets", "held_out": 0.1}  # fmt: skip
    config = GHNConfig.from_dict({"num_classes": 2, "trained_for": trained_for})
    assert json.loads(json.dumps(config.to_dict()))["trained_for"] == trained_for
    assert GHNConfig.from_dict(config.to_dict()) == config != config.shape == GHNConfig(num_classes=2)
    assert config.trained_for.evaluation_width == 24
    assert "trained_for" not in config.shape.to_dict()
    with pytest.raises(ValueError, match="expected names of 3 classes, got 2"):
        config.replace(num_classes=3)


@pytest.mark.parametrize("name", PRESETS)
def test_there_and_back_through_json(name):
    config = GHNConfig.preset(name, num_classes=13, weight_norm=False)
    assert GHNConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert hash(GHNConfig.from_dict(config.to_dict())) == hash(config)
