import dataclasses

import pytest
import torch
from ghn_pyg.models.checkpoints.folder import check_state
from ghn_pyg.models.checkpoints.key_names import CheckpointError, from_published, is_ours, strip_wrappers, to_published
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.models.checkpoints.checkpoint_files.checkpoint_files import (
    GOLDEN,
    TINY,
    TINY2,
    convolutions,
    hub_form,
    published_shapes,
    published_state,
    same,
)

from ghn_pyg.models.config import PRESETS, GHNConfig
from ghn_pyg.models.ghn import GHN

BASELINES = [TINY2, dataclasses.replace(TINY2, encoder="ghn1"), dataclasses.replace(TINY2, encoder="mlp")]


def meta(shapes):
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("golden", "config"),
    [
        ("T", GHNConfig.preset("ghn3tm8")),
        ("T10", GHNConfig.preset("ghn3tm8", num_classes=10, max_kernel_size=11)),
        ("G2", GHNConfig.preset("ghn2")),
    ],
)
def test_made_up_checkpoints_have_the_names_and_shapes_of_published_ones(golden, config):
    assert published_shapes(config) == GOLDEN[golden]


@pytest.mark.parametrize(
    ("published", "ours"),
    [
        ("embed.weight", "node_embedding.weight"),
        ("shape_enc.embed_spatial.weight", "shape_encoding.spatial.weight"),
        ("shape_enc.embed_channel.weight", "shape_encoding.channel.weight"),
        ("gnn.0.centrality_embed_in.weight", "encoder.centrality.in_degree.weight"),
        ("gnn.0.centrality_embed_out.weight", "encoder.centrality.out_degree.weight"),
        ("gnn.0.input_dist_embed.weight", "encoder.depth.weight"),
        ("centrality_embed_in.weight", "encoder.centrality.in_degree.weight"),
        ("centrality_embed_out.weight", "encoder.centrality.out_degree.weight"),
        ("input_dist_embed.weight", "encoder.depth.weight"),
        ("gnn.0.attn.edge_embed.embed.weight", "encoder.spatial.distance.weight"),
        ("gnn.0.attn.proj_e.0.weight", "encoder.spatial.mlp.0.weight"),
        ("gnn.0.attn.proj_e.2.bias", "encoder.spatial.mlp.2.bias"),
        ("gnn.0.ln1.weight", "encoder.layers.0.norm1.weight"),
        ("gnn.13.ln1.bias", "encoder.layers.13.norm1.bias"),
        ("gnn.2.attn.to_qkv.weight", "encoder.layers.2.qkv.weight"),
        ("gnn.2.attn.to_out.0.bias", "encoder.layers.2.out.bias"),
        ("gnn.2.ln2.weight", "encoder.layers.2.norm2.weight"),
        ("gnn.23.ff.net.0.weight", "encoder.layers.23.ff.0.weight"),
        ("gnn.23.ff.net.3.weight", "encoder.layers.23.ff.2.weight"),
        ("ln.bias", "norm.bias"),
        ("gnn.gru.weight_ih", "encoder.gru.weight_ih"),
        ("gnn.gru.bias_hh", "encoder.gru.bias_hh"),
        ("gnn.mlp.fc.0.weight", "encoder.mlp.0.weight"),
        ("gnn.mlp.fc.2.bias", "encoder.mlp.2.bias"),
        ("gnn.mlp_ve.fc.0.bias", "encoder.virtual_mlp.0.bias"),
        ("gnn.mlp_ve.fc.2.weight", "encoder.virtual_mlp.2.weight"),
        ("decoder.fc.0.weight", "decoder.weight.fc.weight"),
        ("decoder.conv.0.weight", "decoder.weight.conv.0.weight"),
        ("decoder.conv.2.bias", "decoder.weight.conv.2.bias"),
        ("decoder.class_layer_predictor.1.weight", "decoder.weight.classifier.weight"),
        ("decoder_1d.fc.0.weight", "decoder.vector.fc.0.weight"),
        ("decoder_1d.fc.2.bias", "decoder.vector.fc.2.bias"),
        ("bias_class.1.weight", "decoder.vector.classifier.weight"),
    ],
)
def test_each_name_has_its_counterpart(published, ours):
    tensor = torch.ones(2)
    (name,) = from_published({published: tensor})
    assert name == ours
    back = to_published({ours: tensor}, TINY)
    assert back.keys() <= {published, f"gnn.0.{published}"}
    assert from_published(back)[ours].data_ptr() == tensor.data_ptr()


@pytest.mark.parametrize("golden", ["T", "T10", "G2"])
def test_published_names_are_covered_one_to_one(golden):
    state = meta(GOLDEN[golden])
    ours = from_published(state)
    assert len(ours) == len(state)
    assert [t.shape for t in ours.values()] == [t.shape for t in state.values()]
    assert is_ours(ours)
    assert not is_ours(state)


@pytest.mark.parametrize("changes", [{}, {"num_classes": 10, "max_kernel_size": 11}, {"final_norm": False}])
@pytest.mark.parametrize("preset", PRESETS)
def test_names_and_shapes_are_those_of_the_model(preset, changes):
    config = GHNConfig.preset(preset, **changes)
    with torch.device("meta"):
        expected = {name: tensor.shape for name, tensor in GHN(config).state_dict().items()}
    check_state(expected, from_published(meta(published_shapes(config))))


def test_there_and_back_for_ghn3():
    state = published_state(TINY)
    ours = from_published(state)
    assert same(to_published(ours, TINY), state)
    assert same(from_published(hub_form(state)), ours)
    assert "gnn.0.input_dist_embed.weight" not in hub_form(state)


@pytest.mark.parametrize("config", BASELINES, ids=lambda config: config.encoder)
def test_there_and_back_for_the_baselines_whose_linear_layers_are_convolutions(config):
    state = published_state(config)
    ours = from_published(convolutions(state))
    assert same(ours, from_published(state))
    assert ours["decoder.weight.conv.0.weight"].shape == (64, 32)
    assert ours["decoder.weight.classifier.weight"].shape == (7, 5)
    assert same(to_published(ours, config), convolutions(state))
    assert to_published(ours, config)["decoder.conv.2.weight"].shape == (25, 64, 1, 1)


def test_nothing_is_copied_or_changed():
    state = convolutions(published_state(TINY2))
    before = {name: (tensor.shape, tensor.data_ptr()) for name, tensor in state.items()}
    ours = from_published(state)
    assert {tensor.data_ptr() for tensor in ours.values()} == {pointer for _, pointer in before.values()}
    assert {name: (tensor.shape, tensor.data_ptr()) for name, tensor in state.items()} == before


def test_larger_kernels_are_left_for_the_shape_check():
    weight = torch.ones(3, 2, 5, 1)
    assert from_published({"decoder.conv.0.weight": weight})["decoder.weight.conv.0.weight"].shape == (3, 2, 5, 1)


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod.", "_orig_mod.module."])
def test_wrappers_leave_no_trace(prefix):
    state = {name: torch.empty(shape, device="meta") for name, shape in published_shapes(TINY).items()}
    wrapped = {prefix + name: tensor for name, tensor in state.items()}
    assert from_published(wrapped).keys() == from_published(state).keys()
    assert strip_wrappers(wrapped).keys() == state.keys()


@settings(max_examples=40, deadline=None)
@given(
    layers=st.integers(1, 40),
    final_norm=st.booleans(),
    hub=st.booleans(),
    prefix=st.sampled_from(["", "_orig_mod.", "module."]),
    random=st.randoms(use_true_random=False),
)
def test_any_number_of_layers_in_any_order(layers, final_norm, hub, prefix, random):
    config = dataclasses.replace(TINY, layers=layers, final_norm=final_norm)
    state = meta(published_shapes(config))
    names = list(hub_form(state) if hub else state)
    random.shuffle(names)
    source = hub_form(state) if hub else state
    ours = from_published({prefix + name: source[name] for name in names})
    assert to_published(ours, config).keys() == state.keys()
    assert from_published(to_published(ours, config)).keys() == ours.keys()


@pytest.mark.parametrize(
    "name",
    [
        "conv1.weight",
        "layer1.0.bn1.running_mean",
        "embed",
        "embed.weight.extra",
        "xembed.weight",
        "gnn.ln1.weight",
        "gnn.00.ln1.weight",
        "gnn.-1.ln1.weight",
        "gnn.1.ln3.weight",
        "gnn.\u0663.ln1.weight",
        "gnn.12345.ln1.weight",
        "gnn.1.input_dist_embed.weight",
        "decoder.fc.2.weight",
        "embed.weight\n",
        "",
    ],
)
def test_names_of_other_families_are_refused_by_name(name):
    state = {"ln.weight": torch.ones(2), name: torch.ones(2)}
    with pytest.raises(CheckpointError) as error:
        from_published(state)
    assert str(error.value).startswith(f"1 of 2 tensors belong to no published GHN: {name!r}.")


def test_many_unknown_names_are_cut_short():
    with pytest.raises(CheckpointError, match=r"9 of 9 tensors .* 'a0', 'a1', 'a2', 'a3', 'a4' and 4 more\."):
        from_published({f"a{i}": torch.ones(1) for i in range(9)})


@pytest.mark.parametrize(
    "names",
    [
        ("input_dist_embed.weight", "gnn.0.input_dist_embed.weight"),
        ("_orig_mod.ln.weight", "ln.weight"),
    ],
)
def test_two_tensors_cannot_share_a_name(names):
    with pytest.raises(CheckpointError, match=f"{names[0]!r} and {names[1]!r} both stand for"):
        from_published(dict.fromkeys(names, torch.ones(2)))


def test_what_was_never_published_has_no_published_name():
    with pytest.raises(CheckpointError, match=r"1 of 1 tensors have no published name: 'decoder.weight.fc.2.weight'"):
        to_published({"decoder.weight.fc.2.weight": torch.ones(2)}, TINY)


def test_the_error_is_a_value_error():
    assert issubclass(CheckpointError, ValueError)
