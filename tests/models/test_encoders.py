import copy

import pytest
import torch
from torch import nn

from ghn_pyg import GHN, GHNConfig, from_module, register_encoder
from ghn_pyg.models.encoders import ENCODERS
from ghn_pyg.nn import ConvEncoder
from tests.models.ghns import IMAGES, X, dense, vision
from tests.properties import ENCODER_PROPERTIES, TOLERANCE, name_of

D = 12
# What stands in tests/nn already.
OTHERS = sorted(set(ENCODERS) - {"ghn3", "ghn2", "ghn1", "mlp"})


def config(encoder, **changes):
    kind = ENCODERS[encoder]
    sizes = {"hidden_channels": D, "max_channels": 7, "max_kernel_size": 5, "num_classes": 11}
    return GHNConfig(encoder, layers=2 * kind.layers, heads=3 * kind.heads, **{**sizes, **changes})


def graph():
    return from_module(dense(), X)


def encoder(name):
    torch.manual_seed(3)
    return ENCODERS[name].build(config(name))


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("holds", ENCODER_PROPERTIES, ids=name_of)
def test_properties(holds, name, dtype):
    holds(encoder(name).to(dtype), D)


@pytest.mark.parametrize("name", ENCODERS)
def test_a_ghn_predicts_alone_as_in_a_batch(name):
    torch.manual_seed(3)
    ghn = GHN(config(name)).double().eval()
    networks = [graph(), from_module(vision(), IMAGES), graph()]
    together = ghn.predict(networks, seed=0)
    for network, prediction in zip(networks, together, strict=True):
        alone = ghn.predict(network, seed=0)
        assert list(alone) == list(prediction)
        for parameter in alone:
            torch.testing.assert_close(prediction[parameter], alone[parameter], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ENCODERS)
def test_a_ghn_is_saved_and_loaded(name, tmp_path):
    torch.manual_seed(3)
    ghn = GHN(config(name)).eval()
    ghn.save_pretrained(tmp_path)
    loaded = GHN.from_pretrained(tmp_path)
    assert loaded.config == ghn.config
    for parameter, value in ghn.predict(graph()).items():
        assert torch.equal(loaded.predict(graph())[parameter], value)


@pytest.mark.parametrize("name", ENCODERS)
def test_parameters_are_drawn_anew_and_copied(name):
    ghn = GHN(config(name))
    torch.manual_seed(7)
    ghn.reset_parameters()
    torch.manual_seed(7)
    again = copy.deepcopy(ghn)
    again.reset_parameters()
    for one, two in zip(ghn.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two)


class Own(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.linear = nn.Linear(channels, channels)

    def forward(self, x, edge_index):
        return self.linear(x).index_add(0, edge_index[1], x[edge_index[0]])


@pytest.fixture
def own():
    register_encoder("own", lambda c: ConvEncoder(c.hidden_channels, [Own(c.hidden_channels)]), layers=False)
    yield "own"
    del ENCODERS["own"]


def test_ones_own_encoder(own, tmp_path):
    ghn = GHN(config(own)).eval()
    ghn.save_pretrained(tmp_path)
    value = GHN.from_pretrained(tmp_path).predict(graph())["0.weight"]
    assert torch.equal(value, ghn.predict(graph())["0.weight"])


def test_a_name_is_given_once(own):
    with pytest.raises(ValueError, match="there is an encoder 'own' already; choose another name"):
        register_encoder("own", encoder)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("gcn", {"layers": 0}, "GHNConfig.layers must be an integer of at least 1, got 0"),
        ("gps", {"heads": 0}, "GHNConfig.heads must be an integer of at least 1, got 0"),
        ("gatv2", {"heads": 5}, "GHNConfig.hidden_channels must be a multiple of heads, got 12 and 5"),
        ("gatv3", {}, r"GHNConfig.encoder must be one of ghn3, .*, got 'gatv3'; did you mean gatv2"),
        ("unheard of", {}, "register_encoder makes others known"),
    ],
)
def test_configurations_that_do_not_fit(name, changes, message):
    with pytest.raises(ValueError, match=message):
        GHNConfig(name, **{"hidden_channels": D, "layers": 2, "heads": 3, **changes})
