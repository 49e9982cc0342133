import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ghn_pyg import GHN, PRESETS, CheckpointError, GHNConfig
from ghn_pyg.models.checkpoints.published_keys import from_published, our_weights, strip_wrappers, to_published
from tests.golden import STATE_DICT_SHAPES
from tests.models.checkpoints.checkpoint_files import (
    TINY,
    TINY2,
    convolutions,
    hub_form,
    published_shapes,
    published_state,
    same,
)

GOLDEN = {
    "T": GHNConfig.preset("ghn3tm8"),
    "T10": GHNConfig.preset("ghn3tm8", num_classes=10, max_kernel_size=11),
    "G2": GHNConfig.preset("ghn2"),
}
BASELINES = [TINY2.replace(encoder=encoder) for encoder in ("ghn2", "ghn1", "mlp")]


def meta(shapes):
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


@pytest.mark.parametrize("golden", GOLDEN)
def test_checkpoints_of_these_tests_have_the_names_and_shapes_of_published_ones(golden):
    assert published_shapes(GOLDEN[golden]) == STATE_DICT_SHAPES[golden]


@pytest.mark.parametrize("changes", [{}, {"num_classes": 10, "max_kernel_size": 11}, {"final_norm": False}])
@pytest.mark.parametrize("preset", PRESETS)
def test_published_names_and_shapes_become_those_of_the_model(preset, changes):
    config = GHNConfig.preset(preset, **changes)
    with torch.device("meta"):
        expected = {name: tensor.shape for name, tensor in GHN(config).state_dict().items()}
    ours = from_published(meta(published_shapes(config)))
    assert {name: tensor.shape for name, tensor in ours.items()} == expected


def test_ghn3_there_and_back():
    state = published_state(TINY)
    ours = from_published(state)
    assert same(to_published(ours, TINY), state)
    assert same(from_published(hub_form(state)), ours)
    assert "gnn.0.input_dist_embed.weight" not in hub_form(state)


@pytest.mark.parametrize("config", BASELINES, ids=lambda config: config.encoder)
def test_baselines_there_and_back_with_convolutions(config):
    state = published_state(config)
    ours = from_published(convolutions(state))
    assert same(ours, from_published(state))
    assert ours["decoder.weight.conv.0.weight"].shape == (64, 32)
    assert ours["decoder.weight.classifier.weight"].shape == (7, 5)
    assert same(to_published(ours, config), convolutions(state))


def test_translation_copies_and_changes_nothing():
    state = convolutions(published_state(TINY2))
    before = {name: (tensor.shape, tensor.data_ptr()) for name, tensor in state.items()}
    ours = from_published(state)
    assert {tensor.data_ptr() for tensor in ours.values()} == {pointer for _, pointer in before.values()}
    assert {name: (tensor.shape, tensor.data_ptr()) for name, tensor in state.items()} == before


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod.", "_orig_mod.module."])
def test_prefixes_of_wrappers_are_stripped(prefix):
    state = published_state(TINY)
    wrapped = {prefix + name: tensor for name, tensor in state.items()}
    assert same(strip_wrappers(wrapped), state)
    assert same(our_weights(wrapped), from_published(state))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, torch.float8_e4m3fn])
def test_tensors_that_are_no_weights(dtype):
    with pytest.raises(CheckpointError, match=f"expected weights, got a tensor of {dtype}, .* at 'ln.weight'"):
        our_weights({"ln.weight": torch.ones(3).to(dtype)})


@settings(max_examples=40, deadline=None)
@given(
    layers=st.integers(1, 40),
    final_norm=st.booleans(),
    form=st.sampled_from([dict, hub_form]),
    random=st.randoms(use_true_random=False),
)
def test_any_number_of_layers_in_any_order(layers, final_norm, form, random):
    config = TINY.replace(layers=layers, final_norm=final_norm)
    state = meta(published_shapes(config))
    items = list(form(state).items())
    random.shuffle(items)
    ours = from_published(dict(items))
    assert to_published(ours, config).keys() == state.keys()
    assert from_published(to_published(ours, config)).keys() == ours.keys()


@pytest.mark.parametrize(
    "name",
    ["conv1.weight", "embed", "embed.weight.extra", "xembed.weight", "gnn.ln1.weight", "gnn.00.ln1.weight",
     "gnn.-1.ln1.weight", "gnn.1.ln3.weight", "gnn.\u0663.ln1.weight", "gnn.12345.ln1.weight",
     "gnn.1.input_dist_embed.weight", "decoder.fc.2.weight", "embed.weight\n", ""],
)  # fmt: skip
def test_names_of_other_families_are_refused(name):
    with pytest.raises(CheckpointError) as error:
        from_published({"ln.weight": torch.ones(2), name: torch.ones(2)})
    assert str(error.value).startswith(f"1 of 2 tensors belong to no published GHN: {name!r}.")


def test_tensors_without_a_published_name():
    with pytest.raises(CheckpointError, match=r"1 of 1 tensors have no published name: 'decoder.weight.fc.2.weight'"):
        to_published({"decoder.weight.fc.2.weight": torch.ones(2)}, TINY)


@pytest.mark.parametrize(
    ("rename", "names"),
    [
        (strip_wrappers, ["ln.weight", "_orig_mod.ln.weight"]),
        (from_published, ["centrality_embed_in.weight", "gnn.0.centrality_embed_in.weight"]),
    ],
)
def test_two_tensors_for_one_name_are_refused(rename, names):
    with pytest.raises(CheckpointError, match="got several for"):
        rename({name: torch.ones(2, 3) for name in names})
