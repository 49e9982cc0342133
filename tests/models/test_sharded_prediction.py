import os

import pytest
import torch
from torch import nn
from torch_geometric.data import Batch

from ghn_pyg import __version__, from_module, load_prediction, predict_shards
from ghn_pyg.models.checkpoints import SavedTensors, ShardIndex
from ghn_pyg.models.checkpoints.shard_reader import INDEX_FILE
from tests.killed import killed_at
from tests.models.ghns import ENCODERS, IMAGES, X, dense, make, vision
from tests.tracing.helpers import assert_unchanged, snapshot


def read(folder):
    return {name: tensor.clone() for tensors in SavedTensors(folder) for name, tensor in tensors.items()}


def assert_same(tensors, expected):
    assert tensors.keys() == expected.keys()
    for name, tensor in expected.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor), name


@pytest.mark.parametrize(("shard_size", "dtype"), [(1, torch.float32), (700, torch.bfloat16), (10**9, torch.float64)])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_shards_hold_the_prediction(encoder, shard_size, dtype, tmp_path):
    ghn, graph = make(encoder), from_module(vision(), IMAGES)
    index = predict_shards(ghn, graph, tmp_path, shard_size=shard_size, dtype=dtype, seed=3)
    expected = ghn.predict(graph, dtype=dtype, seed=3)
    assert_same(read(tmp_path), expected)
    shards = len(set(index.weight_map.values()))
    assert shards in {1: [9], 700: range(2, 9), 10**9: [1]}[shard_size]
    files = [f"model-{number:05}-of-{shards:05}.safetensors" for number in range(1, shards + 1)]
    assert sorted(os.listdir(tmp_path)) == [*files, INDEX_FILE]
    assert ShardIndex.read(tmp_path) == index
    assert index.metadata == {
        "config": ghn.config.to_dict(), "kept": dict(expected.kept), "tied": {}, "ghn_pyg": __version__,
        "total_size": dtype.itemsize * sum(tensor.numel() for tensor in expected.values()),
    }  # fmt: skip
    assert list(index.metadata["kept"]) == ["token"]


def test_keeping_the_classifier(tmp_path):
    ghn, graph = make(), from_module(vision(), IMAGES)
    index = predict_shards(ghn, graph, tmp_path, keep_classifier=True, seed=3)
    expected = ghn.predict(graph, keep_classifier=True, seed=3)
    assert_same(read(tmp_path), expected)
    assert index.metadata["kept"] == expected.kept
    assert set(expected.kept) == {"token", "head.weight", "head.bias"}


def test_a_network_without_memory(tmp_path):
    with torch.device("meta"):
        network = dense()
    predict_shards(make(), from_module(network, X), tmp_path, metadata={"ghn": "small"})
    assert ShardIndex.read(tmp_path).metadata["ghn"] == "small"
    loaded = load_prediction(network.to_empty(device="cpu"), tmp_path)
    assert_same(dict(loaded.named_parameters()), make().predict(from_module(dense(), X)))


def test_a_network_instead_of_its_graph(tmp_path):
    network = nn.Sequential(nn.Conv2d(3, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 2))
    before = snapshot(network)
    predict_shards(make(), network, tmp_path)
    assert_unchanged(network, before)
    assert_same(read(tmp_path), make().predict(network))


def test_parameters_without_elements(tmp_path):
    with pytest.warns(UserWarning, match="zero-element"):
        empty = nn.Linear(5, 0)
    network = nn.ModuleList([nn.Linear(5, 3), empty])
    network.forward = lambda x: (network[0](x), network[1](x))
    graph = from_module(network, X)
    predict_shards(make(), graph, tmp_path)
    assert_same(read(tmp_path), make().predict(graph))


def test_a_failure_leaves_an_earlier_prediction(tmp_path, request):
    ghn, graph = make(), from_module(vision(), IMAGES)
    predict_shards(ghn, graph, tmp_path, shard_size=1, seed=3)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    request.getfixturevalue("full_disk")
    with pytest.raises(OSError, match="No space left on device"):
        predict_shards(ghn, graph, tmp_path, shard_size=1, seed=5)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the prediction is another process")
def test_what_a_killed_prediction_leaves_goes_with_the_next(tmp_path):
    ghn, graph = make(), from_module(dense(), X)
    assert killed_at(10, lambda: predict_shards(ghn, graph, tmp_path, shard_size=1))
    assert os.listdir(tmp_path)
    predict_shards(ghn, graph, tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["model-00001-of-00001.safetensors", INDEX_FILE]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"shard_size": 0}, ValueError, "shard_size expected a number of bytes of at least 1, got 0"),
        ({"metadata": {"ghn": torch.ones(3)}}, TypeError, "not JSON serializable"),
    ],
)
def test_bad_options_raise_before_the_work(tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        predict_shards(make(), from_module(dense(), X), tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()


def test_batches(tmp_path):
    batch = Batch.from_data_list([from_module(dense(), X)] * 2)
    with pytest.raises(ValueError, match="predict_shards expected one network or its graph, got a batch"):
        predict_shards(make(), batch, tmp_path)


@pytest.mark.parametrize("tied", [False, True])
def test_transformers_loads_it(tmp_path, tied):
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=17, vocab_size=23,
        tie_word_embeddings=tied,
    )  # fmt: skip
    with torch.device("meta"):
        network = transformers.LlamaForCausalLM(config)
    tokens = torch.zeros(1, 5, dtype=torch.long)
    graph = from_module(network, {"input_ids": tokens})
    config.save_pretrained(tmp_path)
    index = predict_shards(make(), graph, tmp_path, shard_size=1000, dtype=torch.bfloat16)
    assert index.metadata["tied"] == ({"lm_head.weight": "model.embed_tokens.weight"} if tied else {})
    model, info = transformers.LlamaForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    expected = make().predict(graph, dtype=torch.bfloat16)
    assert_same({name: tensor.detach().bfloat16() for name, tensor in model.named_parameters()}, expected)
    assert model(tokens).logits.isfinite().all()
