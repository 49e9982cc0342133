import dataclasses

import pytest
import torch
from ghn_pyg.models.checkpoints.folder import read_checkpoint, write_folder
from ghn_pyg.models.checkpoints.key_names import CheckpointError, from_published
from tests.models.checkpoints.checkpoint_files.checkpoint_files import (
    GOLDEN,
    TINY,
    TINY2,
    convolutions,
    published_shapes,
    published_state,
    same,
    training_checkpoint,
)

from ghn_pyg.models.checkpoints.infer_config import infer_config
from ghn_pyg.models.config import GHNConfig

STATE = published_state(TINY)
OURS = from_published(STATE)


@pytest.mark.parametrize(
    ("golden", "config"),
    [
        ("T", GHNConfig.preset("ghn3tm8")),
        ("T10", GHNConfig.preset("ghn3tm8", num_classes=10, max_kernel_size=11)),
        ("G2", GHNConfig.preset("ghn2")),
    ],
)
def test_published_configurations_are_inferred(golden, config):
    state = {name: torch.empty(1).expand(shape) for name, shape in GOLDEN[golden].items()}
    assert infer_config(state) == config
    assert infer_config(from_published(state)) == config


@pytest.mark.parametrize("preset", ["ghn3tm8", "ghn3sm8", "ghn3lm8", "ghn3xlm16", "ghn2", "ghn1", "mlp"])
@pytest.mark.parametrize("changes", [{}, {"num_classes": 10, "max_kernel_size": 11}, {"final_norm": False}])
def test_all_presets_are_inferred(preset, changes):
    config = GHNConfig.preset(preset, **changes)
    state = {name: torch.empty(1).expand(shape) for name, shape in published_shapes(config).items()}
    assert infer_config(state) == config


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        (
            "decoder.conv.2.weight",
            (24, 96),
            r"'decoder.weight.conv.2.weight' has 24 rows, expected a square number times",
        ),
        ("decoder.fc.0.weight", (48 * 120, 12), r"'decoder.weight.fc.weight' has 5760 rows, .* times 48"),
        ("embed.weight", (15,), r"'node_embedding.weight' has shape \(15,\), expected two dimensions"),
        ("embed.weight", (15, 3), r"make no configuration: .*multiple of 4"),
        ("gnn.0.attn.proj_e.2.weight", (5, 12), r"make no configuration: .*multiple of heads, got 12 and 5"),
        ("decoder.conv.2.weight", None, r"no tensor 'decoder.weight.conv.2.weight'; expected .* convolutional decoder"),
        ("gnn.0.attn.proj_e.2.weight", None, r"no tensor 'encoder.spatial.mlp.2.weight'"),
    ],
)
def test_shapes_that_make_no_configuration(name, shape, message):
    state = {key: value for key, value in STATE.items() if key != name}
    if shape is not None:
        state[name] = torch.empty(shape)
    with pytest.raises(CheckpointError, match=message):
        infer_config(state)


def test_published_configurations_are_used_where_tensors_do_not_tell(tmp_path):
    published = {"hid": 12, "layers": 2, "heads": 3, "num_classes": 7, "max_shape": (5, 5, 11, 11), "other": [1]}
    torch.save(training_checkpoint(STATE, **published, weight_norm=False), tmp_path / "ghn.pt")
    assert read_checkpoint(tmp_path / "ghn.pt")[0] == dataclasses.replace(TINY, weight_norm=False)


def test_our_own_configuration_in_a_training_checkpoint(tmp_path):
    config = dataclasses.replace(TINY, weight_norm=False, kernel_crop="corner")
    torch.save(training_checkpoint(OURS, **config.to_dict()), tmp_path / "ghn.pt")
    assert read_checkpoint(tmp_path / "ghn.pt")[0] == config


def test_published_configurations_of_ghn2_name_layers_without_effect(tmp_path):
    state = convolutions(published_state(TINY2))
    torch.save(training_checkpoint(state, hid=8, layers=3, heads=8), tmp_path / "ghn2.pt")
    assert read_checkpoint(tmp_path / "ghn2.pt")[0] == TINY2


def test_our_configurations_of_ghn2_may_name_them_too(tmp_path):
    config = dataclasses.replace(TINY2, layers=3, heads=8, kernel_crop="center")
    write_folder(tmp_path, config, from_published(published_state(TINY2)))
    assert read_checkpoint(tmp_path)[0] == config


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"layers": 3}, "says layers = 3, but its tensors are those of 2"),
        ({"encoder": "ghn3", "heads": [1]}, "not valid: expected text and numbers, got others as heads"),
        ({"hid": 24}, "says hidden_channels = 24, but its tensors are those of 12"),
        ({"max_shape": [5, 5, 16, 16]}, "says max_kernel_size = 16, but its tensors are those of 11"),
        ({"heads": 0}, "its configuration is not valid: GHNConfig.heads must be an integer of at least 1, got 0"),
        ({"encoder": "ghn3", "depth": 1}, r"not valid: unknown GHNConfig fields \['config', 'depth'\]"),
        (dataclasses.replace(TINY, num_classes=8).to_dict(), "says num_classes = 8, but its tensors are those of 7"),
    ],
)
def test_configurations_that_contradict_the_tensors(wrong, message, tmp_path):
    content = training_checkpoint(STATE)
    content["config"] = {**wrong, "config": 1} if "depth" in wrong else wrong
    torch.save(content, tmp_path / "ghn.pt")
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(tmp_path / "ghn.pt")


def test_the_decoder_that_cannot_be_inferred_comes_with_its_configuration(tmp_path):
    config = dataclasses.replace(TINY, decoder="mlp")
    state = {"node_embedding.weight": torch.ones(15, 12), "decoder.weight.fc.2.weight": torch.ones(3, 2)}
    write_folder(tmp_path, config, state)
    found, tensors = read_checkpoint(tmp_path)
    assert found == config
    assert same(tensors, state)
