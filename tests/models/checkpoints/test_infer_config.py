import pytest
import torch

from ghn_pyg import CheckpointError, GHNConfig
from ghn_pyg.models.checkpoints import read_checkpoint, write_folder
from ghn_pyg.models.checkpoints.infer_config import checked_config, infer_config
from ghn_pyg.models.checkpoints.published_keys import from_published
from ghn_pyg.models.trained_for import TrainedFor
from tests.models.checkpoints.checkpoint_files import (
    TINY,
    TINY2,
    convolutions,
    published_shapes,
    published_state,
    same,
    training_checkpoint,
)

STATE = published_state(TINY)
OURS = from_published(STATE)


@pytest.mark.parametrize("preset", ["ghn3tm8", "ghn3sm8", "ghn3lm8", "ghn3xlm16", "ghn2", "ghn1", "mlp"])
@pytest.mark.parametrize("changes", [{}, {"num_classes": 10, "max_kernel_size": 11}, {"final_norm": False}])
def test_presets_are_inferred_from_their_tensors(preset, changes):
    config = GHNConfig.preset(preset, **changes)
    state = {name: torch.empty(1).expand(shape) for name, shape in published_shapes(config).items()}
    assert infer_config(from_published(state)) == config


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("decoder.conv.2.weight", (24, 96), r"'decoder.weight.conv.2.weight' has 24 rows, expected a square number"),
        ("decoder.fc.0.weight", (48 * 120, 12), r"'decoder.weight.fc.weight' has 5760 rows, .* times 48"),
        ("embed.weight", (15,), r"'node_embedding.weight' has shape \(15,\), expected two dimensions"),
        ("embed.weight", (15, 3), r"make no configuration: .*multiple of 4"),
        ("gnn.0.attn.proj_e.2.weight", (5, 12), r"make no configuration: .*multiple of heads, got 12 and 5"),
        ("decoder.conv.2.weight", None, r"no tensor 'decoder.weight.conv.2.weight'; expected .* convolutional decoder"),
        ("gnn.0.attn.proj_e.2.weight", None, r"no tensor 'encoder.spatial.mlp.2.weight'"),
    ],
)
def test_tensors_that_make_no_configuration(name, shape, message):
    state = {key: value for key, value in STATE.items() if key != name}
    if shape is not None:
        state[name] = torch.empty(shape)
    with pytest.raises(CheckpointError, match=message):
        infer_config(from_published(state))


def test_the_scaling_comes_from_a_published_configuration(tmp_path):
    published = {"hid": 12, "layers": 2, "heads": 3, "num_classes": 7, "max_shape": (5, 5, 11, 11), "other": [1]}
    for weight_norm in (False, True):
        torch.save(training_checkpoint(STATE, **published, weight_norm=weight_norm), tmp_path / "ghn.pt")
        assert read_checkpoint(tmp_path / "ghn.pt")[0] == TINY.replace(weight_norm=weight_norm)


def test_our_own_configuration_in_a_training_checkpoint(tmp_path):
    config = TINY.replace(weight_norm=False, kernel_crop="corner")
    torch.save(training_checkpoint(OURS, **config.to_dict()), tmp_path / "ghn.pt")
    assert read_checkpoint(tmp_path / "ghn.pt")[0] == config


def test_numbers_of_layers_and_heads_have_no_effect_on_ghn2(tmp_path):
    torch.save(training_checkpoint(convolutions(published_state(TINY2)), layers=3, heads=8), tmp_path / "ghn2.pt")
    assert read_checkpoint(tmp_path / "ghn2.pt")[0] == TINY2
    config = TINY2.replace(layers=3, heads=8, kernel_crop="center")
    write_folder(tmp_path, config, from_published(published_state(TINY2)))
    assert read_checkpoint(tmp_path)[0] == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_classes": 8}, "says num_classes = 8, but its tensors are those of 7"),
        ({"layers": 3}, "says layers = 3, but its tensors are those of 2"),
        ({"heads": 0}, "its configuration is not valid: GHNConfig.heads expected at least 1"),
        ({"heads": [1]}, "not valid: expected text and numbers, got others as heads"),
        ({"encoder": ["gcn"]}, "not valid: expected text and numbers, got others as encoder"),
        ({f"depth{number}": 1 for number in range(30)}, "not valid: it has 41 fields"),
        ({"trained_for": [1]}, "not valid: expected text and numbers, got others as trained_for"),
        ({"trained_for": {"data": [[]]}}, "not valid: expected text and numbers, got others as trained_for"),
        ({"trained_for": {"data": "ants"}}, "not valid: TrainedFor.image_size is missing"),
        ({"depth": 1}, "not valid: GHNConfig has no field 'depth'"),
        ({"decoder": "mlp", "layers": 10**9}, "layers expected a value less than or equal to 200"),
        ({"decoder": "mlp", "layers": 150}, "says 150 layers of width 12"),
        ({"encoder": "gcn", "hidden_channels": 40_000}, "says 2 layers of width 40000"),
        ({"encoder": "gcn", "num_classes": 10**6}, "num_classes = 1000000, but no dimension .* than 5808"),
        ({"decoder": "mlp", "max_kernel_size": 10**9}, "max_kernel_size expected a value less than or equal to 256"),
        ({"decoder": "mlp", "max_channels": 5809}, "max_channels = 5809, but no dimension"),
    ],
)
def test_configurations_that_contradict_the_tensors(changes, message):
    with pytest.raises(CheckpointError, match=message):
        checked_config({**TINY.to_dict(), **changes}, OURS)


def test_what_a_ghn_was_trained_for_is_kept(tmp_path):
    trained_for = TrainedFor(data="ants", image_size=19, mean=(0.3,) * 3, std=(0.2,) * 3, widths=(8, 24))
    config = TINY.replace(trained_for=trained_for)
    write_folder(tmp_path, config, OURS)
    assert read_checkpoint(tmp_path)[0] == read_checkpoint(tmp_path / "model.safetensors")[0] == config


def test_the_mlp_decoder_needs_its_configuration(tmp_path):
    config = TINY.replace(decoder="mlp")
    state = {"node_embedding.weight": torch.ones(15, 12), "decoder.weight.fc.2.weight": torch.ones(3, 2)}
    write_folder(tmp_path, config, state)
    read, tensors = read_checkpoint(tmp_path)
    assert read == config
    assert same(tensors, state)
