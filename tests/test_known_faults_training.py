"""Faults of the published code, by their number, that must not come back: in training and evaluation."""

import itertools
import json
import logging

import pytest
import torch
from ghn_pyg.graph.arch_data.images import load_images
from lightning_fabric import Fabric
from torch import nn

from ghn_pyg import from_pretrained
from ghn_pyg.evaluation.evaluate import evaluate
from ghn_pyg.evaluation.subjects import Subject
from ghn_pyg.families.deepnets.dataset import DeepNets
from ghn_pyg.training.checkpoints import read_training_checkpoint
from ghn_pyg.training.fabric import half_precision, make_fabric
from ghn_pyg.training.run import Run
from tests.training.tiny import config, digits, run

logging.getLogger("lightning_fabric").setLevel(logging.ERROR)

# --- 13: for the global rank see tests/training/test_distributed.py ---------------------------------------------------


def test_13_the_gradient_scaler_is_saved_and_restored(tmp_path):
    def scaled():
        fabric = Fabric(accelerator="cpu", devices=1, plugins=[half_precision("cpu")])
        fabric.launch()
        return fabric

    first = Run(config(), tmp_path, scaled(), digits())
    first.scaler.load_state_dict({**first.scaler.state_dict(), "scale": 4096.0, "_growth_tracker": 97})
    first.go(2, 0, lambda row: None)
    second = Run(config(), tmp_path, scaled(), digits())
    assert second.scaler.get_scale() == 4096
    assert second.scaler.state_dict()["_growth_tracker"] == 99
    second.go(3, 0, lambda row: None)
    assert second.scaler.get_scale() == 8192  # after 100 good steps


def test_13_a_run_goes_on_in_mid_epoch_with_the_next_images_and_architectures(tmp_path):
    stopped = Run(config(), tmp_path, make_fabric(device="cpu"), digits())
    expected = list(itertools.islice(stopped.batches(0), 5))
    stopped.go(2, 0, lambda row: None)  # an epoch has three steps
    resumed = Run(config(), tmp_path, make_fabric(device="cpu"), digits())
    for (architectures, batch), (same, images) in zip(expected[2:], resumed.batches(0), strict=False):
        assert same.step == architectures.step
        assert [part.architecture for part in same.parts] == [part.architecture for part in architectures.parts]
        assert torch.equal(images[0], batch[0])
        assert torch.equal(images[1], batch[1])


def test_13_checkpoints_of_a_compiled_ghn_have_no_prefixes(tmp_path):
    compiled = Run(config(), tmp_path, make_fabric(device="cpu"), digits())
    names = list(compiled.ghn.state_dict())
    compiled.ghn = torch.compile(compiled.ghn)
    assert next(iter(compiled.ghn.state_dict())).startswith("_orig_mod.")
    compiled.go(0, 0, lambda row: None)
    assert list(read_training_checkpoint(tmp_path / "checkpoints" / "step-000000000.pt")["ghn"]) == names
    assert set(from_pretrained(tmp_path / "ghn").state_dict()) == set(names)
    Run(config(), tmp_path, make_fabric(device="cpu"), digits()).go(1, 0, lambda row: None)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # torch reads it as it compiles
@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_13_a_compiled_run_is_saved_and_goes_on(tmp_path, monkeypatch, ema):
    compiled = []

    def quickly(function):
        compiled.append(function)
        return torch._dynamo.optimize("eager")(function)

    monkeypatch.setattr(torch, "compile", quickly)
    # Compilers follow the formula of attention, so that the other run has to: Adam makes much of the last digit.
    monkeypatch.setattr("ghn_pyg.nn.cpu_table_attention.supports", lambda *_: False)
    expected = run(tmp_path / "plain", 3, {"ema": ema})
    assert not compiled
    changes = {"compile": True, "ema": ema}
    run(tmp_path / "compiled", 2, changes)
    found = run(tmp_path / "compiled", 3, changes)
    assert len(compiled) == 2
    assert list(found) == list(expected)
    torch.testing.assert_close(found, expected)
    for name in ("ghn", "average"):
        state = read_training_checkpoint(tmp_path / "compiled" / "checkpoints" / "step-000000003.pt")[name]
        assert not [key for key in state if "_orig_mod" in key]


# --- 14 --------------------------------------------------------------------------------------------------------------


class Guess(nn.Module):
    """Every image has one label."""

    def __init__(self, label):
        super().__init__()
        self.label = nn.Parameter(torch.tensor(label), requires_grad=False)

    def forward(self, images):
        return nn.functional.one_hot(self.label, 10).float().expand(len(images), -1)


def guess(label):
    return Subject(f"guess {label}", 10, lambda: Guess(label), lambda _: DeepNets("val", width=8)[0])


def test_14_the_mean_is_the_mean_and_not_the_count():
    # There are 35, 36 and 34 test images of the digits 0, 1 and 8.
    report = evaluate(None, [guess(label) for label in (0, 1, 8)], load_images("digits", image_size=4))
    assert report.mean("top1") == pytest.approx(105 / 355 / 3)
    assert report.std("top1") == pytest.approx(1 / 355)
    assert report.coverage == 1


def test_14_a_network_that_fails_is_listed_and_lowers_the_coverage(tmp_path):
    def fail():
        raise RuntimeError("it does not fit")

    subjects = [guess(0), Subject("large", 10, fail), guess(1), guess(8)]
    report = evaluate(None, subjects, load_images("digits", image_size=4))
    assert report.coverage == 0.75
    assert report.failures == {"large": "RuntimeError: it does not fit"}
    assert report.mean("top1") == pytest.approx(105 / 355 / 3)
    report.save(tmp_path / "report.json")
    saved = json.loads((tmp_path / "report.json").read_text())
    assert (saved["networks"], saved["coverage"], saved["failures"]) == (4, 0.75, report.failures)
