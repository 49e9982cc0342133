"""Modules of TorchScript, which run themselves, stay as they are."""

import io

import pytest
import torch
from torch import nn

from ghn_pyg import from_module, verify

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated")
X = torch.rand(2, 5)


class Counting(nn.Module):
    """Sets attributes of several kinds in its forward pass."""

    calls: int
    sizes: list[int]

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(5, 3)
        self.calls = 0
        self.sizes = [7]
        self.last = torch.zeros(3)
        self.register_buffer("total", torch.zeros(1))

    def forward(self, x):
        self.calls += 1
        self.sizes.append(x.size(0))
        self.last = self.inner(x)[0]
        self.total = self.total + 1
        return self.inner(x)


@pytest.mark.parametrize("wrap", [lambda script: script, lambda script: nn.Sequential(script, nn.Linear(3, 2))])
def test_what_a_script_sets_on_itself_is_restored(wrap):
    script = torch.jit.script(Counting())
    model, last, total = wrap(script), script.last, script.total
    assert verify(model, X)
    assert (script.calls, script.sizes, script.training) == (0, [7], True)
    assert script.last is last
    assert script.total is total


def test_a_frozen_script_has_no_mode():
    model = nn.Sequential(torch.jit.freeze(torch.jit.script(nn.Linear(5, 3)).eval()), nn.Linear(3, 2))
    assert from_module(model, X).node_names == ["input", "1.weight", "1.bias"]


def test_a_script_that_was_loaded():
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(nn.Sequential(nn.Linear(5, 3), nn.Dropout())), file)
    file.seek(0)
    model = torch.jit.load(file)
    assert from_module(model, X).node_names == ["input", "0.weight", "0.bias"]
    assert [module.training for module in model.modules()] == [True] * 3
