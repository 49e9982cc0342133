"""The code of the README runs as it stands."""

import pathlib
import re

import pytest
import safetensors.torch
import torch
import torchvision

import ghn_pyg
from ghn_pyg import GHN, GHNConfig
from ghn_pyg.models.encoders import ENCODERS
from ghn_pyg.tracing import kept_reasons as reasons
from ghn_pyg.tracing import registry as layers

TEXT = (pathlib.Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
FROM_PRETRAINED = ghn_pyg.from_pretrained
SMALL = GHNConfig(hidden_channels=8, max_channels=8, layers=1, heads=2)


def run(heading, **names):
    """Runs the Python code below a heading; returns all that it has named."""
    section = re.search(rf"^#+ {heading}$(.*?)(?=^#+ |\Z)", TEXT, re.MULTILINE | re.DOTALL)[1]
    source = "\n".join(re.findall(r"^```python$(.*?)^```$", section, re.MULTILINE | re.DOTALL))
    exec(compile(source, f"README.md, {heading}", "exec"), names)  # noqa: S102 - nobody else's text
    return names


@pytest.fixture(autouse=True)
def _no_downloads(monkeypatch):
    """A small GHN stands in for every other."""
    torch.manual_seed(3)
    monkeypatch.setattr(ghn_pyg, "from_pretrained", lambda name: GHN(SMALL))
    monkeypatch.setattr(GHNConfig, "preset", lambda name: SMALL)
    monkeypatch.setattr(layers, "HANDLERS", dict(layers.HANDLERS))


def test_the_first_lines():
    assert isinstance(run("ghn_pyg")["model"], torchvision.models.ResNet)


def test_loading_what_the_command_wrote(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prediction = GHN(SMALL).predict(torchvision.models.resnet50())
    safetensors.torch.save_file(dict(prediction), "resnet50.safetensors")
    assert torch.equal(run("Command line")["model"].fc.weight, prediction["fc.weight"])


def test_evaluation(monkeypatch):
    monkeypatch.setattr(ghn_pyg, "from_pretrained", FROM_PRETRAINED)
    report = run("Train and evaluate")["report"]
    assert (len(report.rows), report.coverage) == (3, 1)
    assert report.mean("top1") > 0.4


def test_coverage(monkeypatch):
    monkeypatch.setattr(reasons, "PARAMETER_RULES", {})
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 5, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(5, 7)
    )
    names = run("Know what is predicted", model=model, ghn=GHN(SMALL))
    assert names["report"].share == names["report"].layer_share == 1
    assert {ghn_pyg.Kept.LAYER_SCALE: names["gains"]} == reasons.PARAMETER_RULES


def test_inheritance():
    images = torch.randn(2, 3, 9, 9)
    names = run("Inherit from a trained network", images=images)
    torch.testing.assert_close(names["wider"](images), names["teacher"](images))


def test_layers():
    try:
        names = run("Layers for your own models")
        assert names["loss"].isfinite()
        assert all(parameter.grad is not None for parameter in names["model"].parameters())
        assert names["ghn"].encoder.arguments == [("edge_index", "edge_attr")] * 3
    finally:
        ENCODERS.pop("my-gat", None)


def test_predictions_and_architectures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = torch.randn(2, 3, 32, 32)
    names = run("Predict parameters", images=images, data_loader=[images])
    assert names["resnet"].kept == {}
    assert list(names["vit"].kept) == ["class_token"]
    assert all(parameter.grad is not None for parameter in names["ghn"].decoder.vector.parameters())
    first, other = (names["ghn"].predict(names["graphs"][1], seed=seed) for seed in (0, 1))
    assert [name for name in first if not torch.equal(first[name], other[name])] == ["encoder.pos_embedding"]
    positions = (first["encoder.pos_embedding"], other["encoder.pos_embedding"])
    assert torch.equal(positions[0][0, 1:], positions[1][0, 1:])

    names = run("Look at architectures", **names)
    network = torch.nn.Sequential(torch.nn.Linear(7, 11), names["MyNorm"](11), torch.nn.Linear(11, 3))
    graph = names["from_module"](network, torch.zeros(1, 7))
    assert graph.param_names[3] == ["1.scale", "1.shift"]
    assert graph.kept == {}
