import sys

import pytest
from torch import nn

from ghn_pyg.zoo.user_models import build

CODE = """
import torch
from torch import nn

plain = lambda: nn.Linear(3, 5)
with_inputs = lambda: (nn.Linear(3, 5), torch.zeros(1, 3))
nothing = lambda: "a network"
wide = lambda channels: nn.Linear(channels, 3)
built = nn.Linear(11, 13)
number = 3

class Nets:
    small = staticmethod(lambda: nn.Linear(2, 7))
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    (tmp_path / "own_nets").mkdir()
    (tmp_path / "own_nets" / "simple.py").write_text(CODE)
    (tmp_path / "own_nets" / "broken.py").write_text("import a_package_that_is_not_there")
    monkeypatch.chdir(tmp_path)
    yield
    for name in [name for name in sys.modules if name.startswith("own_nets")]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("factory", "shape"), [("plain", (5, 3)), ("with_inputs", (5, 3)), ("Nets.small", (7, 2)), ("built", (13, 11))]
)
def test_factories(factory, shape):
    before = list(sys.path)
    network, inputs = build("own_nets.simple", factory)
    assert type(network) is nn.Linear
    assert network.weight.shape == shape
    assert (inputs is not None) == (factory == "with_inputs")
    assert sys.path == before


@pytest.mark.parametrize(
    ("module", "factory", "message"),
    [
        ("own_nets.simpl", "plain", r"no module own_nets\.simpl in /.* or among the installed packages"),
        ("their_nets.simple", "plain", "no module their_nets in /"),
        ("own_nets.simple", "plane", r"own_nets\.simple has no plane; did you mean plain\?"),
        ("own_nets.simple", "Nets.large", r"own_nets\.simple has no Nets\.large"),
        ("own_nets.simple", "number", r"own_nets\.simple:number must be a function that returns a network, got 3"),
        ("own_nets.simple", "wide", r"own_nets\.simple:wide must take no required arguments .*'channels'"),
        ("own_nets.simple", "nothing", r"own_nets\.simple:nothing must return a torch\.nn\.Module, .* got str 'a net"),
    ],
)
def test_unusable_factories(module, factory, message):
    before = list(sys.path)
    with pytest.raises(ValueError, match=message):
        build(module, factory)
    assert sys.path == before


def test_a_missing_import_of_the_module_keeps_its_error():
    with pytest.raises(ModuleNotFoundError, match="a_package_that_is_not_there"):
        build("own_nets.broken", "plain")
