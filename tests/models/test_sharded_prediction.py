import math
import os

import pytest
import torch
from ghn_pyg.models.checkpoints.sharded_files import INDEX_FILE, SavedTensors, ShardIndex
from torch import nn
from torch_geometric.data import Batch

from ghn_pyg import __version__, from_module, load_prediction, predict_shards
from tests.models.ghns import ENCODERS, IMAGES, X, dense, make, vision
from tests.tracing.helpers import assert_unchanged, snapshot

NAMES = ["conv.weight", "conv.bias", "norm.weight", "norm.bias", "positions", "last.weight", "last.bias",
         "head.weight", "head.bias"]  # fmt: skip


def graph_of(network, inputs=IMAGES):
    return from_module(network, inputs)


def read(folder):
    return {name: tensor.clone() for tensors in SavedTensors(folder) for name, tensor in tensors.items()}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("shard_size", [1, 700, 10**9])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_shards_hold_the_prediction(encoder, shard_size, tmp_path):
    ghn, graph = make(encoder), graph_of(vision())
    index = predict_shards(ghn, graph, tmp_path, shard_size=shard_size, seed=3)
    expected = ghn.predict(graph, seed=3)
    assert sorted(index.weight_map) == sorted(NAMES)
    assert_same(read(tmp_path), expected)
    shards = {1: 9, 10**9: 1}.get(shard_size, len(set(index.weight_map.values())))
    assert sorted(os.listdir(tmp_path)) == [
        *(f"model-{number:05}-of-{shards:05}.safetensors" for number in range(1, shards + 1)), INDEX_FILE,
    ]  # fmt: skip
    if shard_size == 700:
        assert 1 < shards < 9
    assert ShardIndex.read(tmp_path) == index
    assert index.metadata == {
        "config": ghn.config.to_dict(), "kept": dict(expected.kept), "tied": {}, "ghn_pyg": __version__,
        "total_size": 4 * sum(tensor.numel() for tensor in expected.values()),
    }  # fmt: skip
    assert list(index.metadata["kept"]) == ["token"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions(dtype, tmp_path):
    ghn, graph = make(), graph_of(vision())
    index = predict_shards(ghn, graph, tmp_path, shard_size=501, dtype=dtype, seed=3)
    expected = ghn.predict(graph, dtype=dtype, seed=3)
    assert index.metadata["total_size"] == dtype.itemsize * sum(math.prod(value.shape) for value in expected.values())
    assert_same(read(tmp_path), expected)


def test_class_tokens_are_drawn_as_by_predict(tmp_path):
    ghn, graph = make(), graph_of(vision())
    torch.manual_seed(11)
    predict_shards(ghn, graph, tmp_path, shard_size=1)
    torch.manual_seed(11)
    assert_same(read(tmp_path), ghn.predict(graph))


def test_keeping_the_classifier(tmp_path):
    ghn, graph = make(), graph_of(vision())
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


def test_a_network_by_itself(tmp_path):
    network = nn.Sequential(nn.Conv2d(3, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 2))
    before = snapshot(network)
    predict_shards(make(), network, tmp_path)
    assert_unchanged(network, before)
    assert_same(read(tmp_path), make().predict(network))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(13, 5)
        self.middle = nn.Linear(5, 5)
        self.head = nn.Linear(5, 13, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens):
        return self.head(self.middle(self.embed(tokens)))


def test_shared_parameters_are_written_once(tmp_path):
    network = Tied()
    graph = from_module(network, torch.zeros(1, 7, dtype=torch.long))
    index = predict_shards(make(), graph, tmp_path, shard_size=1)
    assert index.metadata["tied"] == {"head.weight": "embed.weight"}
    assert "head.weight" not in index.weight_map
    load_prediction(network, tmp_path)
    assert network.head.weight is network.embed.weight
    assert torch.equal(network.head.weight, make().predict(graph)["embed.weight"])


def test_parameters_without_elements(tmp_path):
    with pytest.warns(UserWarning, match="zero-element"):
        empty = nn.Linear(5, 0)
    network = nn.ModuleList([nn.Linear(5, 3), empty])
    network.forward = lambda x: (network[0](x), network[1](x))
    graph = from_module(network, X)
    predict_shards(make(), graph, tmp_path)
    assert_same(read(tmp_path), make().predict(graph))


def test_a_second_prediction_replaces_the_first(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    predict_shards(make(), graph_of(vision()), tmp_path, shard_size=1)
    predict_shards(make("ghn2"), from_module(dense(), X), tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["config.json", "model-00001-of-00001.safetensors", INDEX_FILE]
    assert_same(read(tmp_path), make("ghn2").predict(from_module(dense(), X)))


def test_a_failure_in_the_middle_leaves_the_first(tmp_path, monkeypatch):
    ghn, graph = make(), graph_of(vision())
    predict_shards(ghn, graph, tmp_path, shard_size=1, seed=3)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    forward = type(ghn.decoder).forward

    def stopping(self, *arguments):
        for position, found in enumerate(forward(self, *arguments)):
            if position == 5:
                raise KeyboardInterrupt
            yield found

    monkeypatch.setattr(type(ghn.decoder), "forward", stopping)
    with pytest.raises(KeyboardInterrupt):
        predict_shards(ghn, graph, tmp_path, shard_size=1, seed=5)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    with pytest.raises(KeyboardInterrupt):
        predict_shards(ghn, graph, tmp_path / "new", shard_size=1)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"shard_size": 0}, ValueError, "shard_size expected a number of bytes of at least 1, got 0"),
        ({"metadata": {"ghn": torch.ones(3)}}, TypeError, "not JSON serializable"),
    ],
)
def test_what_does_not_fit_shows_before_the_work(tmp_path, options, error, message):
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
    predict_shards(make(), graph, tmp_path, shard_size=1000, dtype=torch.bfloat16)
    model, info = transformers.LlamaForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    expected = make().predict(graph, dtype=torch.bfloat16)
    assert_same({name: tensor.detach().bfloat16() for name, tensor in model.named_parameters()}, expected)
    assert model(tokens).logits.isfinite().all()
