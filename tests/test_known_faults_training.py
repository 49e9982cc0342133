"""Faults of the published code, by their number, that must not come back: in training and evaluation."""

import pytest
import torch
from torch import nn

from ghn_pyg.data import load_images
from ghn_pyg.evaluation.evaluate import evaluate
from ghn_pyg.evaluation.subjects import Subject
from ghn_pyg.families.deepnets.dataset import DeepNets
from ghn_pyg.training.checkpoints import read_checkpoint
from tests.training.tiny import run

# --- 13: other tests are in tests/training: test_distributed.py, test_resume.py and test_bad_steps.py ----------------


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # torch reads it as it compiles
@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_13_a_compiled_run_is_saved_and_resumed(tmp_path, monkeypatch, ema):
    compiled = []

    def quickly(function):
        compiled.append(function)
        return torch._dynamo.optimize("eager")(function)

    monkeypatch.setattr(torch, "compile", quickly)
    # Compilers use the formula of attention, so that the other run has to: Adam amplifies the last digit.
    monkeypatch.setattr("ghn_pyg.nn.cpu_table_attention.supports", lambda *_: False)
    expected = run(tmp_path / "plain", 3, {"ema": ema})
    assert not compiled
    changes = {"compile": True, "ema": ema}
    run(tmp_path / "compiled", 2, changes)
    weights = run(tmp_path / "compiled", 3, changes)
    assert len(compiled) == 2
    torch.testing.assert_close(weights, expected)
    for name in ("ghn", "average"):
        state = read_checkpoint(tmp_path / "compiled" / "checkpoints" / "step-000000003.pt")[name]
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
