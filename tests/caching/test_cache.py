import errno
import functools
import json
import os
import re
import subprocess
import sys
import warnings

import pytest
import torch
import torchvision
from torch import nn

from ghn_pyg import GHN, GHNConfig, GraphCache, TracingError, from_module
from ghn_pyg.caching.stored import same
from ghn_pyg.graphs import reasons
from tests.caching.networks import X, small
from tests.graphs.tracing import assert_unchanged, network, snapshot, weight


def test_the_second_time_nothing_is_traced(tmp_path, traces):
    cache = GraphCache(tmp_path / "new" / "folder")
    first = cache.from_module(small(), X)
    second = cache.from_module(small(), X)
    third = GraphCache(tmp_path / "new" / "folder").from_module(small().eval(), X)
    assert len(traces) == 1
    assert same(first, second)
    assert same(first, third)
    assert same(first, from_module(small(), X))
    assert second is not third
    second.kept_items = (("changed", "by a user"),)
    assert cache.from_module(small(), X).kept == {}
    files = os.listdir(cache.folder)
    assert [bool(re.fullmatch(r"[0-9a-f]{64}\.json", name)) for name in files] == [True]


def test_each_network_input_and_cutoff_has_its_own_file(tmp_path, traces):
    cache = GraphCache(tmp_path)
    for _ in range(2):
        graphs = [
            cache.from_module(small(), X),
            cache.from_module(small(11), X),
            cache.from_module(small(), torch.rand(2, 13, 5)),
            cache.from_module(small(), X, cutoff=2),
        ]
    assert len(traces) == len(os.listdir(tmp_path)) == 4
    assert [graph.distance.max().item() for graph in graphs] == [4, 4, 4, 2]
    assert graphs[1].node_shape[1].tolist() == [11, 5, 1, 1]


@pytest.mark.parametrize("name", ["squeezenet1_1", "googlenet", "shufflenet_v2_x0_5"])
def test_networks_of_torchvision(tmp_path, traces, name):
    options = {"init_weights": False} if name == "googlenet" else {}

    def build():
        with torch.device("meta"):
            return torchvision.models.get_model(name, **options)

    cache = GraphCache(tmp_path)
    cache.from_module(build())
    graph = cache.from_module(build())
    assert len(traces) == 1
    assert same(graph, from_module(build()))


def test_a_graph_from_the_cache_predicts(tmp_path):
    cache = GraphCache(tmp_path)
    cache.from_module(small(), X)
    ghn = GHN(GHNConfig(hidden_channels=8, max_channels=8, layers=1, heads=2))
    prediction, expected = ghn.predict(cache.from_module(small(), X)), ghn.predict(from_module(small(), X))
    assert all(torch.equal(prediction[name], expected[name]) for name in expected)


def test_a_hit_leaves_the_network_as_it_is(tmp_path):
    cache, model = GraphCache(tmp_path), torchvision.models.squeezenet1_1()
    before, state = snapshot(model), torch.get_rng_state()
    for _ in range(2):
        cache.from_module(model)
        assert_unchanged(model, before)
        assert torch.equal(torch.get_rng_state(), state)


def test_errors_are_those_of_from_module(tmp_path):
    cache = GraphCache(tmp_path)
    with pytest.raises(TypeError, match=r"expected a torch\.nn\.Module, got type"):
        cache.from_module(nn.Linear, X)
    with pytest.raises(TypeError, match="example_inputs expected a tensor"):
        cache.from_module(small(), 3)
    with pytest.raises(ValueError, match="has no parameters"):
        cache.from_module(nn.ReLU(), X)
    with pytest.raises(ValueError, match="not initialised yet"):
        cache.from_module(nn.LazyLinear(3), X)
    with pytest.raises(ValueError, match="cutoff must be between"):
        cache.from_module(small(), X, cutoff=0)
    with pytest.raises(TracingError, match="the forward pass of Sequential failed"):
        cache.from_module(small(), torch.rand(2, 3))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("limit", [0, -3])
def test_settings_are_checked(tmp_path, limit):
    with pytest.raises(ValueError, match=f"max_bytes must be positive or None, got {limit}"):
        GraphCache(tmp_path, max_bytes=limit)
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match=r"needs a folder, and .*file is a file"):
        GraphCache(tmp_path / "file")
    assert repr(GraphCache("some/folder", 31)) == "GraphCache('some/folder', max_bytes=31)"


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: b"",
        lambda text: text[: len(text) // 2],
        lambda text: text + b"\n",
        lambda text: text.replace(b"weight", b"height"),
        lambda text: b"\x80\x04cos\nsystem\n.",  # a pickle
        lambda text: json.dumps({"node_type": [9]}).encode(),
        lambda text: os.urandom(1009),
    ],
)
def test_damaged_files_are_replaced(tmp_path, traces, damage):
    cache = GraphCache(tmp_path)
    expected = cache.from_module(small(), X)
    (path,) = tmp_path.iterdir()
    good = path.read_bytes()
    path.write_bytes(damage(good))
    assert same(cache.from_module(small(), X), expected)
    assert len(traces) == 2
    assert path.read_bytes() == good


def test_a_file_of_another_network_under_this_name(tmp_path, traces):
    cache = GraphCache(tmp_path)
    expected = cache.from_module(small(), X)
    (path,) = tmp_path.iterdir()
    path.rename(tmp_path / "kept")
    cache.from_module(small(11), X)
    (other,) = tmp_path.glob("*.json")
    other.rename(path)
    assert same(cache.from_module(small(), X), expected)
    assert len(traces) == 3


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_costs_a_warning(tmp_path, monkeypatch, step):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.warns(UserWarning, match=r"could not be kept: cannot write .*: No space left on device") as caught:
        graph = GraphCache(tmp_path).from_module(small(), X)
    assert caught[0].filename == __file__
    assert same(graph, from_module(small(), X))
    assert os.listdir(tmp_path) == []


def test_a_folder_that_cannot_be_made_costs_a_warning(tmp_path):
    cache = GraphCache(tmp_path / "file" / "folder")
    (tmp_path / "file").touch()
    with pytest.warns(UserWarning, match="could not be kept: .*Not a directory"):
        assert cache.from_module(small(), X).num_nodes == 5


def test_a_folder_in_place_of_a_file_costs_a_warning(tmp_path):
    cache = GraphCache(tmp_path)
    cache.from_module(small(), X)
    (path,) = tmp_path.iterdir()
    path.unlink()
    path.mkdir()
    with pytest.warns(UserWarning, match="could not be kept"):
        assert cache.from_module(small(), X).num_nodes == 5


def test_what_was_not_used_for_longest_goes(tmp_path, traces):
    cache = GraphCache(tmp_path)
    cache.from_module(small(7), X)
    (path,) = tmp_path.iterdir()
    size = path.stat().st_size
    for name in ("notes.json", "model.safetensors"):
        (tmp_path / name).write_bytes(bytes(10 * size))
    left_behind = tmp_path / f".{'a' * 32}.json"
    left_behind.write_bytes(bytes(size))
    for age, file in enumerate([left_behind, path]):
        os.utime(file, ns=(age, age))
    cache = GraphCache(tmp_path, max_bytes=3 * size + 50)
    for width in (11, 13, 7, 17):
        cache.from_module(small(width), X)
    assert not left_behind.exists()
    assert len(list(tmp_path.glob("?" * 64 + ".json"))) == 3
    assert (tmp_path / "notes.json").exists()
    assert (tmp_path / "model.safetensors").exists()
    assert len(traces) == 4
    for width in (7, 13, 17):
        cache.from_module(small(width), X)
    assert len(traces) == 4
    cache.from_module(small(11), X)
    assert len(traces) == 5


PROGRAM = """
import sys, warnings
import torch
from torch import nn
if sys.argv[2] == "small":
    import torch._dynamo
from ghn_pyg import GraphCache
from ghn_pyg.caching.fingerprint import fingerprint
from ghn_pyg.caching.stored import to_bytes
warnings.simplefilter("error")

class Net(nn.Module):
    kinds = {"one", "two", "three"}
    def __init__(self, width):
        super().__init__()
        self.a, self.b = nn.Linear(5, width), nn.Linear(width, 3)
        self.names = {"one", "two", "three"}
    def forward(self, x):
        return self.b(torch.nn.functional.gelu(self.a(x)))

x = torch.rand(2, 5)
folder = GraphCache(sys.argv[1], max_bytes=3_000 if sys.argv[2] == "small" else None)
for _ in range(5):
    graphs = [to_bytes(folder.from_module(Net(width), x), "key") for width in range(7, 17)]
print([fingerprint(Net(width), (x,), {}, 50).key for width in range(7, 17)], graphs)
"""


def test_several_processes(tmp_path):
    """They read, write and remove the same files, and find the same keys."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", PROGRAM, str(tmp_path), size],
            env={**os.environ, "PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed, size in [("2", "small"), ("3", "any")]
    ]
    answers = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert answers[0] == answers[1]
    assert len(set(re.findall(r"'([0-9a-f]{64})'", answers[0]))) == 10
    files = [path.name for path in tmp_path.iterdir()]
    assert files
    assert all(re.fullmatch(r"[0-9a-f]{64}\.json", name) for name in files)


def test_nothing_is_loaded_as_a_pickle(tmp_path, monkeypatch):
    import pickle

    def forbidden(*_, **__):
        raise AssertionError("a pickle is read")

    cache = GraphCache(tmp_path)
    cache.from_module(small(), X)
    monkeypatch.setattr(pickle, "loads", forbidden)
    monkeypatch.setattr(pickle, "load", forbidden)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cache.from_module(small(), X).num_nodes == 5


def test_a_rule_for_kept_parameters_makes_another_graph(tmp_path, monkeypatch):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.scale = nn.Linear(5, 5), nn.Parameter(torch.ones(5))

        def forward(self, x):
            return self.layer(x) * self.scale

    monkeypatch.setattr(reasons, "PARAMETER_RULES", {})
    cache = GraphCache(tmp_path)
    assert list(cache.from_module(Scaled(), torch.zeros(2, 5)).kept) == ["scale"]
    reasons.register_parameter(reasons.Kept.LAYER_SCALE)(lambda name, parameter: ("bn", "gain"))
    for _ in range(2):
        graph = cache.from_module(Scaled(), torch.zeros(2, 5))
        assert graph.node_names == ["input", "layer.weight", "layer.bias", "scale"]
    reasons.register_parameter(reasons.Kept.LAYER_SCALE)(lambda name, parameter: ("ln", "gain"))
    assert cache.from_module(Scaled(), torch.zeros(2, 5)).node_types[-1] == "ln"
    for kind in ("bn", "ln"):
        rule = functools.partial(lambda kind, name, parameter: (kind, "gain"), kind)
        reasons.register_parameter(reasons.Kept.LAYER_SCALE)(rule)
        assert cache.from_module(Scaled(), torch.zeros(2, 5)).node_types[-1] == kind


def test_rules_that_look_at_values(tmp_path, monkeypatch):
    def scaled(value):
        layer = network(lambda self, x: self.a(x) * self.g, a=nn.Linear(5, 5), g=weight(5))
        nn.init.constant_(layer.g, value)
        return layer

    monkeypatch.setattr(reasons, "PARAMETER_RULES", {})
    reasons.register_parameter(reasons.Kept.LAYER_SCALE)(lambda _, g: ("bn", "gain") if float(g[0]) == 1 else None)
    cache = GraphCache(tmp_path)
    assert list(cache.from_module(scaled(1.0), torch.zeros(2, 5)).kept) == []
    assert list(cache.from_module(scaled(0.1), torch.zeros(2, 5)).kept) == ["g"]
