"""The benchmarks: their baselines give our results, and their quick modes run."""

import importlib
import json
import sys

import networkx as nx
import pytest
import torch
import torchvision

from benchmarks import (
    __main__,
    attention,
    coverage,
    deepnets,
    encoders,
    growth,
    harness,
    language,
    learning,
    paths,
    prediction,
    published,
    published_package,
    soundness,
    textbook,
    tracing,
    training,
    wild,
)
from benchmarks.networks import IMAGE, SEVEN, build_ghn, deep_network, operations
from ghn_pyg import GHN, PRIMITIVES, GHNConfig, from_module
from ghn_pyg.zoo.torchvision_models import build


def test_speedups_are_normalised_by_the_matrix_product():
    # A machine that takes twice as long for a product would have needed half of our time.
    assert published.speedup(6.0, 2.0, 0.26) == {"raw": 3.0, "normalised": 6.0}
    assert published.speedup(None, 2.0, 0.26) is None


def test_goals():
    (goal,) = published.check_goals("tracing", {("speedup", "mean"): {"raw": 19.0, "normalised": 21.0}})
    assert goal["met"] == {"raw": False, "normalised": True}
    assert "raw: 19.00 (missed), normalised: 21.00 (met)" in published.goal_table([goal])
    assert "not measured" in published.goal_table(published.check_goals("tracing", {}))
    _, limit, memory = published.check_goals("ghn3xlm16", {("limit", "resnet50"): {"in place": 1.7}})
    assert limit["met"] == {"in place": True}
    assert memory["met"] is None


def test_networks_with_published_times_are_measured():
    sections = [published.FIGURES["tracing"], *published.FIGURES["prediction"].values()]
    assert {name for section in sections for name in section["seconds"]} <= set(SEVEN)
    assert [build_ghn(name).config.encoder for name in ("tiny", "tiny2")] == ["ghn3", "ghn2"]


@pytest.mark.parametrize(("asked", "nodes"), [(11, 11), (50, 51), (500, 501)])
def test_deep_networks_have_about_as_many_nodes(asked, nodes):
    assert from_module(deep_network(asked, width=5), torch.zeros(IMAGE)).num_nodes == nodes


def test_operations():
    config = GHNConfig(hidden_channels=8, max_channels=5, max_kernel_size=3, layers=1, heads=2)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 7, (2, 11)), torch.nn.Flatten(), torch.nn.Linear(7, 2))
    graph = from_module(network, torch.zeros(1, 3, 2, 11))
    convolution = 2 * 2 * 3 * (32 * 8 + 64 * 32 + 64 * 5 * 3)  # the kernel is cropped to 2 × 3, the channels to 5 × 3
    linear = 2 * (32 * 8 + 64 * 32 + 64 * 2 * 5)
    assert operations(config, graph) == convolution + linear


def small_vit():
    return torchvision.models.VisionTransformer(
        image_size=24, patch_size=8, num_layers=2, num_heads=2, hidden_dim=14, mlp_dim=22, num_classes=6
    )


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0", "convnext_tiny", "densenet121"])
def test_the_textbook_gives_the_same_graph(name):
    model, image = build(name).train(), torch.randn(1, 3, 64, 64)
    assert tracing.same_graph(from_module(model, image), textbook.trace(model, image))
    assert all(module.training for module in model.modules())


def test_different_graphs():
    image = torch.randn(1, 3, 64, 64)
    assert not tracing.same_graph(from_module(build("resnet18"), image), textbook.trace(build("resnet34"), image))


def test_the_textbook_gives_the_same_edges():
    model, image = small_vit(), torch.randn(1, 3, 24, 24)
    ours, (theirs, distances) = from_module(model, image), textbook.trace(model, image)
    assert tracing.same_graph(ours, (theirs, distances))

    def edges(graph, types):
        return {
            tuple(graph.nodes[node]["params"][0] if graph.nodes[node]["params"] else types[node] for node in edge)
            for edge in graph.edges
        }

    types = [PRIMITIVES[kind] for kind in ours.node_type.tolist()]
    assert edges(ours.to_networkx(), types) == edges(theirs, nx.get_node_attributes(theirs, "type"))


CONFIGS = {
    "ghn3": GHNConfig(hidden_channels=12, max_channels=5, max_kernel_size=3, num_classes=7, layers=2, heads=3),
    "ghn2": GHNConfig(
        encoder="ghn2", hidden_channels=8, max_channels=5, max_kernel_size=5, num_classes=7, layers=0, heads=0,
        kernel_crop="corner",
    ),
}  # fmt: skip


@pytest.mark.parametrize("encoder", CONFIGS)
@pytest.mark.parametrize("network", [small_vit, lambda: build("resnet18"), lambda: build("squeezenet1_1")])
def test_the_textbook_gives_the_same_parameters(encoder, network):
    torch.manual_seed(2)
    ghn = GHN(CONFIGS[encoder]).eval()
    with torch.no_grad():
        for parameter in ghn.parameters():  # biases too
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    graph = from_module(network())
    torch.manual_seed(3)  # of the class token's row
    ours = ghn.predict(graph)
    torch.manual_seed(3)
    theirs = textbook.TextbookGHN.of(ghn).predict(graph)
    assert prediction.largest_difference(ours, theirs) < 1e-5
    assert all(theirs[name].shape == value.shape for name, value in ours.items())
    assert prediction.largest_difference({"w": torch.tensor([2, 4])}, {"w": torch.tensor([2, 5])}) == pytest.approx(0.2)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_all_kinds_of_attention_agree(monkeypatch):
    methods = attention.methods_on("cuda")
    monkeypatch.setattr(attention, "methods_on", lambda device: methods)
    batch = attention.Batch([5, 13], "cpu")
    assert tuple(attention.methods(batch)) == methods
    assert attention.agree(batch) < 1e-6


def test_both_ways_to_train_give_the_same_gradient():
    config, ghn, images = training.material(quick=True)
    meta_batch = training.batches(config).meta_batch(0)
    gradients = []
    for method in training.METHODS.values():
        torch.manual_seed(3)
        method(config, ghn, meta_batch, *images)
        gradients.append(torch.cat([one.grad.flatten() for one in ghn.parameters() if one.grad is not None]))
    assert (gradients[0] - gradients[1]).norm() / gradients[1].norm() < 1e-4


ALL = (__main__, attention, coverage, deepnets, encoders, growth, language, learning, paths, prediction, soundness,
       tracing, training, wild)  # fmt: skip


@pytest.mark.parametrize("benchmark", ALL, ids=lambda module: module.__name__.partition(".")[2])
def test_help(benchmark, capsys):
    with pytest.raises(SystemExit, match="0"):
        benchmark.main(["--help"])
    assert "--quick" in capsys.readouterr().out


def in_this_process(function, **arguments):
    """Calls ``"module:function"`` of the benchmarks as a new process would."""
    module, _, name = function.partition(":")
    return json.loads(json.dumps(getattr(importlib.import_module(f"benchmarks.{module}"), name)(**arguments)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("benchmark", "options", "section"),
    [
        (attention, ["--nodes", "16"], "## One graph, forward and backward"),
        (coverage, ["--libraries", "torchvision"], "## torchvision: 2 networks, 0 with a fault"),
        (deepnets, [], "## Dropping meta-batches"),
        (encoders, ["--folder", "run"], "## long_range, 1 seed"),
        (growth, ["--nodes", "11", "31"], "## encoder"),
        (language, ["--folder", "."], "(goal: less than 2.00 GB): reached"),
        (learning, ["--minutes", "0.01", "--recipes", "as published"], "18.7 % of 30 architectures"),
        (paths, [], "## One graph of 100 nodes"),
        (prediction, ["--networks", "squeezenet1_1"], "## tiny2"),
        (soundness, ["--splits", "wide", "--width", "8", "--image-size", "16"], "| wide | 2 |"),
        (tracing, ["--networks", "squeezenet1_1"], "| squeezenet1_1 | 65 |"),
        (training, [], "GB at most.\n"),
        (wild, ["--libraries", "torch", "torch_geometric", "pytorchcv"], "| torch_geometric | 2 | 2 | 2 | 2 | 2 | 2 |"),
    ],
    ids=lambda value: value.__name__.partition(".")[2] if hasattr(value, "main") else "",
)
def test_quick_mode(benchmark, options, section, tmp_path, monkeypatch):
    """Benchmarks end with 1 if results differ from those of their baselines."""
    if benchmark is language:
        pytest.importorskip("transformers")
    # Each new process imports torch for seconds; the test of the harness starts a real one.
    monkeypatch.setattr(benchmark, "in_new_process", in_this_process, raising=False)
    monkeypatch.setattr(harness, "in_new_process", in_this_process)
    monkeypatch.chdir(tmp_path)
    assert benchmark.main(["--quick", "--out", "results", *options]) == 0
    json_file, report = sorted((tmp_path / "results").iterdir())
    assert section in report.read_text()
    results = json.loads(json_file.read_text())
    assert results["matrix_product_s"]["median"] > 0
    if benchmark is training:  # its toy step is not compared with the published one
        assert "goals" not in results
        assert "published" not in report.read_text()


def test_a_ghn_that_needs_more_memory_is_skipped(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(prediction, "available_memory", lambda: 1e9)
    assert prediction.main(["--quick", "--ghns", "ghn3xlm16", "--out", str(tmp_path)]) == 0
    assert "ghn3xlm16 is left out: it needs 4.62 GB of memory" in capsys.readouterr().err


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A module with the interface of the published package."""
    (tmp_path / "ghn3.py").write_text(
        "def from_pretrained(name):\n"
        "    if name != 'tiny.pt':\n"
        "        raise OSError('no such file')\n"
        "    return lambda model: model\n"
        "class Graph:\n"
        "    def __init__(self, model):\n"
        "        assert not hasattr(model, 'seen')\n"
        "        model.seen = True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("ghn3", None)


@pytest.mark.usefixtures("package")
def test_the_published_package_is_measured_where_it_is_installed(capsys):
    assert published_package.missing() is None
    row = tracing.measured("squeezenet1_1", repeats=1, package=True)
    assert row["package_seconds"] > 0
    run = harness.Run("prediction", harness.arguments(None, "prediction").parse_args(["--quick"]))
    rows = prediction.benchmark("tiny", ["squeezenet1_1"], 1, run)["rows"]
    assert {"whole_seconds", "package_seconds"} <= set(rows[0])
    assert prediction.load_package("tiny2", run) is None
    assert "has no weights of tiny2: no such file" in capsys.readouterr().err
