import json
import sys

import networkx as nx
import pytest
import torch
import torchvision

from benchmarks import __main__ as everything
from benchmarks import (
    attention,
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
    textbook,
    tracing,
    training,
)
from benchmarks.subjects import IMAGE, SEVEN, build_ghn, deep_network, operations
from ghn_pyg import GHN, PRIMITIVES, GHNConfig, from_module
from ghn_pyg.zoo.torchvision_models import build


class TestPublished:
    def test_speedup_is_normalised_by_the_matrix_product(self):
        # A machine that takes twice as long for a product would have needed half of our time.
        assert published.speedup(6.0, 2.0, 0.26) == {"raw": 3.0, "normalised": 6.0}
        assert published.speedup(None, 2.0, 0.26) is None

    def test_goals_are_judged_by_every_measure(self):
        values = {("speedup", "mean"): {"raw": 19.0, "normalised": 21.0}}
        (goal,) = published.judged("tracing", values)
        assert goal["met"] == {"raw": False, "normalised": True}
        assert "raw: 19.00 (missed), normalised: 21.00 (met)" in published.goal_table([goal])
        assert "not measured" in published.goal_table(published.judged("tracing", {}))

    def test_bounds_from_above(self):
        _, limit, memory = published.judged("ghn3xlm16", {("limit", "resnet50"): {"in place": 1.7}})
        assert limit["met"] == {"in place": True}
        assert memory["met"] is None


class TestSubjects:
    @pytest.mark.parametrize(("asked", "nodes"), [(11, 11), (50, 51), (500, 501)])
    def test_deep_networks_have_about_as_many_nodes(self, asked, nodes):
        assert from_module(deep_network(asked, width=5), torch.zeros(IMAGE)).num_nodes == nodes

    def test_operations(self):
        config = GHNConfig(hidden_channels=8, max_channels=5, max_kernel_size=3, layers=1, heads=2)
        network = torch.nn.Sequential(torch.nn.Conv2d(3, 7, (2, 11)), torch.nn.Flatten(), torch.nn.Linear(7, 2))
        graph = from_module(network, torch.zeros(1, 3, 2, 11))
        convolution = 2 * 2 * 3 * (32 * 8 + 64 * 32 + 64 * 5 * 3)  # the kernel is cut to 2 × 3, the channels to 5 × 3
        linear = 2 * (32 * 8 + 64 * 32 + 64 * 2 * 5)
        assert operations(config, graph) == convolution + linear


def small_vit():
    return torchvision.models.VisionTransformer(
        image_size=24, patch_size=8, num_layers=2, num_heads=2, hidden_dim=14, mlp_dim=22, num_classes=6
    )


class TestTextbookTracing:
    @pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0", "convnext_tiny", "densenet121"])
    def test_same_graph(self, name):
        model = build(name)
        image = torch.randn(1, 3, 64, 64)
        assert tracing.same_graph(from_module(model, image), textbook.trace(model, image))

    def test_same_edges_between_parameters(self):
        model, image = small_vit(), torch.randn(1, 3, 24, 24)
        ours, (theirs, _) = from_module(model, image), textbook.trace(model, image)
        assert tracing.same_graph(ours, (theirs, textbook.trace(model, image)[1]))

        def edges(graph, kinds):
            return {
                tuple(graph.nodes[node]["params"][0] if graph.nodes[node]["params"] else kinds[node] for node in edge)
                for edge in graph.edges
            }

        names = [PRIMITIVES[kind] for kind in ours.node_type.tolist()]
        assert edges(ours.to_networkx(), names) == edges(theirs, nx.get_node_attributes(theirs, "type"))

    def test_differences_are_seen(self):
        image = torch.randn(1, 3, 64, 64)
        other = textbook.trace(build("resnet34"), image)
        assert not tracing.same_graph(from_module(build("resnet18"), image), other)

    def test_the_network_is_left_as_it_was(self):
        model = build("resnet18").train()
        before = {name: value.clone() for name, value in model.state_dict().items()}
        textbook.trace(model, torch.randn(1, 3, 64, 64))
        assert all(module.training and not module._forward_hooks for module in model.modules())
        assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


CONFIGS = {
    "ghn3": GHNConfig(hidden_channels=12, max_channels=5, max_kernel_size=3, num_classes=7, layers=2, heads=3),
    "ghn2": GHNConfig(
        encoder="ghn2", hidden_channels=8, max_channels=5, max_kernel_size=5, num_classes=7, layers=0, heads=0,
        kernel_crop="corner",
    ),
}  # fmt: skip


@pytest.mark.parametrize("encoder", CONFIGS)
@pytest.mark.parametrize("network", [small_vit, lambda: build("resnet18"), lambda: build("squeezenet1_1")])
def test_textbook_prediction_is_ours(encoder, network):
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


def test_differences_of_predictions_are_seen():
    value = torch.tensor([2.0, 4.0])
    assert prediction.largest_difference({"w": value}, {"w": value + torch.tensor([0.0, 1.0])}) == pytest.approx(0.2)


@pytest.fixture
def one_thread(monkeypatch):
    """Tiny subjects gain nothing from more threads, which wait for one another on a busy machine."""
    before = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
class TestQuickRuns:
    def result(self, folder, name):
        (json_file,) = folder.glob(f"{name}-*.json")
        return json.loads(json_file.read_text()), json_file.with_suffix(".md").read_text()

    def test_tracing(self, tmp_path):
        assert tracing.main(["--quick", "--networks", "squeezenet1_1", "--out", str(tmp_path)]) == 0
        found, report = self.result(tmp_path, "tracing")
        (row,) = found["rows"]
        assert row["same_graph"]
        assert min(row["seconds"], row["textbook_seconds"]) > 0
        assert set(found["memory"]["squeezenet1_1"]) == {"ours", "textbook"}
        assert "| squeezenet1_1 | 65 |" in report

    def test_prediction(self, tmp_path):
        assert prediction.main(["--quick", "--networks", "squeezenet1_1", "--out", str(tmp_path)]) == 0
        found, report = self.result(tmp_path, "prediction")
        for ghn in found["ghns"]:
            (row,) = ghn["rows"]
            assert row["difference"] < 1e-5
            assert row["over_limit"] == pytest.approx(row["initialize_seconds"] / row["limit_seconds"])
            assert ghn["memory"][0]["over_weights"] > 0
        assert "## tiny2" in report

    def test_growth(self, tmp_path):
        assert growth.main(["--quick", "--out", str(tmp_path)]) == 0
        found, report = self.result(tmp_path, "growth")
        assert [row["nodes"] for row in found["rows"]] == [51, 101]
        assert found["rows"][1]["distance_bytes"] == 101**2
        for stage in growth.STAGES:
            assert found["rows"][0][stage]["seconds"] > 0
            assert isinstance(found["exponents"][stage]["seconds"], float)
        assert "## encoder" in report

    @pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
    def test_attention_of_all_kinds_is_the_same(self, monkeypatch):
        kinds = attention.methods_on("cuda")
        monkeypatch.setattr(attention, "methods_on", lambda device: kinds)
        batch = attention.Batch([5, 13], "cpu")
        assert tuple(attention.methods(batch)) == kinds
        assert attention.agree(batch) < 1e-6

    def test_attention(self, tmp_path):
        assert attention.main(["--quick", "--nodes", "16", "--out", str(tmp_path)]) == 0
        found, report = self.result(tmp_path, "attention")
        (batch,) = found["batches"].values()
        assert batch["difference"] < 1e-5
        assert list(batch["methods"]) == list(attention.METHODS)
        assert list(found["growth"]["16"]) == ["bias and layer", "layer", "textbook", "gpsconv"]
        assert "## One graph, forward and backward" in report

    def test_paths(self, tmp_path):
        assert paths.main(["--quick", "--out", str(tmp_path)]) == 0
        found, report = self.result(tmp_path, "paths")
        assert found["agree"]
        assert len(found["seconds_per_graph"]) == 7
        assert "## One graph of 100 nodes" in report

    def test_language(self, tmp_path):
        pytest.importorskip("transformers")
        (tmp_path / "shards").mkdir()
        folder = ["--folder", str(tmp_path / "shards")]
        assert language.main(["--quick", *folder, "--out", str(tmp_path)]) == 0
        found, report = self.result(tmp_path, "language")
        assert found["graph"]["kept"] == 0
        (row,) = found["shards"]
        assert row["bytes"] == 2 * found["graph"]["parameters"]
        assert row["shards"] > 1
        assert row["finite"]
        assert list((tmp_path / "shards").iterdir()) == []
        assert "all libraries included (goal: less than 2.00 GB): reached" in report

    def test_learning(self, tmp_path):
        options = ["--quick", "--minutes", "0.01", "--recipes", "as published", "--out", str(tmp_path)]
        assert learning.main(options) == 0
        found, report = self.result(tmp_path, "learning")
        (published,) = found["recipes"].values()
        assert not published["config"]["balance"]
        assert sum(point["step"] == published["steps"] for point in published["curve"]) == 1
        assert "18.7 % of 30 architectures" in report

    def test_encoders(self, tmp_path):
        assert encoders.main(["--quick", "--folder", str(tmp_path / "run"), "--out", str(tmp_path)]) == 0
        found, report = self.result(tmp_path, "encoders")
        assert [(row["task"], row["encoder"]) for row in found["results"]] == [
            ("long_range", "mlp"), ("long_range", "ghn3"), ("cost", "mlp"), ("cost", "ghn3")
        ]  # fmt: skip
        assert (tmp_path / "run" / "results.md").read_text() in report

    def test_training(self, tmp_path):
        assert training.main(["--quick", "--out", str(tmp_path)]) == 0
        found, report = self.result(tmp_path, "training")
        (row,) = found["rows"]
        assert row["nodes"] > 30
        assert min(row[name] for name in ("ours", "ours_peak", "one_graph", "one_graph_peak")) > 0
        assert found["mean_seconds"] == row["ours"]
        assert "published 11.8 s and 8.9 GB" in report
        assert all(goal["measured"] is None or not goal["measured"] for goal in found["goals"])

    def test_deepnets(self, tmp_path):
        pytest.importorskip("h5py")
        assert deepnets.main(["--quick", "--out", str(tmp_path)]) == 0
        found, report = self.result(tmp_path, "deepnets")
        seconds = {row["way"]: row["seconds"] for row in found["rates"]}
        assert min(seconds["sample"], seconds["sample, graph, distances and network"]) > 0
        assert [row["cells"] for row in found["growth"]] == [4, 8]
        assert 100 < found["nodes"]["mean"] < 300
        assert "## Dropping meta-batches" in report


def test_all_benchmarks_run_one_after_another(monkeypatch):
    given = []
    modules = (tracing, prediction, growth, attention, paths, deepnets, training)
    for module in modules:
        monkeypatch.setattr(module, "main", lambda options, module=module: given.append((module, options)) or 0)
    assert everything.main(["--quick", "--out", "x"]) == 0
    assert given == [(module, ["--quick", "--out", "x"]) for module in modules]


def test_a_ghn_that_does_not_fit_is_left_out(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(prediction, "available_memory", lambda: 1e9)
    assert prediction.main(["--ghns", "ghn3xlm16", "--out", str(tmp_path)]) == 0
    assert "ghn3xlm16 is left out: it needs 4.62 GB of memory" in capsys.readouterr().err


@pytest.mark.usefixtures("one_thread")
class TestPublishedPackage:
    @pytest.fixture
    def package(self, tmp_path, monkeypatch):
        """A stand-in with the published package's interface."""
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

    def test_missing(self, monkeypatch):
        monkeypatch.setattr(published_package.importlib.util, "find_spec", lambda name: None)
        assert "not installed" in published_package.missing()

    def test_measured_where_it_is_installed(self, package):
        assert published_package.missing() is None
        row = tracing.measured("squeezenet1_1", repeats=1, package=True)
        assert row["package_seconds"] > 0
        run = prediction.Run("prediction", harness.arguments(None, "prediction").parse_args(["--quick"]))
        found = prediction.benchmark("tiny", ["squeezenet1_1"], 1, run)
        assert {"whole_seconds", "package_seconds"} <= set(found["rows"][0])

    def test_weights_that_cannot_be_had(self, package, capsys):
        run = prediction.Run("prediction", harness.arguments(None, "prediction").parse_args(["--quick"]))
        assert prediction.load_package("tiny2", run) is None
        assert "has no weights of tiny2: no such file" in capsys.readouterr().err


def test_published_figures_are_about_networks_that_are_measured():
    sections = [published.FIGURES["tracing"], *published.FIGURES["prediction"].values()]
    assert {name for section in sections for name in section["seconds"]} <= set(SEVEN)
    assert build_ghn("tiny").config.encoder == "ghn3"
    assert build_ghn("tiny2").config.encoder == "ghn2"


def test_both_ways_to_train_give_the_same_gradient():
    config, ghn, images = training.material(quick=True)
    meta_batch = training.batches(config).meta_batch(0)
    found = []
    for method in training.METHODS.values():
        torch.manual_seed(3)
        method(config, ghn, meta_batch, *images)
        found.append(torch.cat([one.grad.flatten() for one in ghn.parameters() if one.grad is not None]))
    difference = (found[0] - found[1]).norm() / found[1].norm()
    assert difference < 1e-4
