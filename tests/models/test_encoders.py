import pytest
import torch
from torch import nn
from torch_geometric.nn import BatchNorm
from torch_geometric.nn.inits import reset

from ghn_pyg import GHN, GHNConfig, from_module, register_encoder
from ghn_pyg.models import ENCODERS
from ghn_pyg.nn import ConvEncoder
from tests.models.ghns import IMAGES, X, dense, vision
from tests.properties import ENCODER_PROPERTIES, TOLERANCE, name_of

D = 12
OTHERS = sorted(set(ENCODERS) - {"ghn3", "ghn2", "ghn1", "mlp"})  # tests/nn has these


def config(encoder, **changes):
    kind = ENCODERS[encoder]
    sizes = {"hidden_channels": D, "max_channels": 7, "max_kernel_size": 5, "num_classes": 11}
    return GHNConfig(encoder=encoder, layers=2 * kind.layers, heads=3 * kind.heads, **{**sizes, **changes})


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
    for network, prediction in zip(networks, ghn.predict(networks, seed=0), strict=True):
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
    torch.testing.assert_close(dict(loaded.predict(graph())), dict(ghn.predict(graph())), rtol=0, atol=0)


@pytest.mark.parametrize("name", ENCODERS)
def test_reset_parameters_draws_what_the_constructor_draws(name):
    torch.manual_seed(7)
    new, ghn = GHN(config(name)), GHN(config(name))
    torch.manual_seed(7)
    ghn.reset_parameters()
    for one, two in zip(ghn.parameters(), new.parameters(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("name", OTHERS)
def test_an_encoder_resets_all_of_its_parameters(name):
    one = encoder(name)
    for parameter in one.parameters():
        nn.init.constant_(parameter, 7.0)
    reset(one)
    kept = [key for key, parameter in one.named_parameters() if (parameter == 7).all()]
    assert not [key for key in kept if "attn.out_proj" not in key]  # PyG's GPSConv leaves it


class Spy(nn.Module):
    """Notes the devices of its arguments."""

    def forward(self, *arguments):
        self.devices = [argument.device.type for argument in arguments]
        return arguments[0]


def test_a_batch_is_moved_to_the_device_of_the_ghn():
    """The device without memory stands in for a GPU."""
    ghn = GHN(config("mlp")).to("meta")
    ghn.encoder = Spy()
    ghn.embed([graph(), from_module(vision(), IMAGES)])
    assert ghn.encoder.devices == ["meta"] * 4


# --- encoders of the user --------------------------------------------------------------------------------------------


class Own(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.linear = nn.Linear(channels, channels)
        self.register_buffer("shift", torch.full((1,), 3), persistent=False)  # not saved

    def forward(self, x, edge_index):
        return self.linear(x).index_add(0, edge_index[1], x[edge_index[0]]) + self.shift


@pytest.fixture
def register():
    def add(build):
        register_encoder("own", build, layers=False)
        return GHN(config("own")).eval()

    yield add
    del ENCODERS["own"]


def test_an_own_encoder_is_saved_and_loaded(register, tmp_path):
    ghn = register(lambda c: ConvEncoder(c.hidden_channels, [Own(c.hidden_channels)]))
    ghn.save_pretrained(tmp_path)
    loaded = GHN.from_pretrained(tmp_path)
    assert torch.equal(loaded.predict(graph())["0.weight"], ghn.predict(graph())["0.weight"])


def test_a_second_encoder_of_the_same_name_replaces_the_first(register):
    register(lambda c: ConvEncoder(c.hidden_channels, [nn.Linear(1, 1)]))
    ghn = register(lambda c: ConvEncoder(c.hidden_channels, [nn.Linear(1, 1), nn.Linear(1, 1)]))
    assert len(ghn.encoder.layers) == 2


@pytest.mark.parametrize("name", ["", "a/b", "../x", ".hidden", 3])
def test_bad_names(name):
    with pytest.raises(ValueError, match="an encoder's name expected letters, digits"):
        register_encoder(name, encoder)


def test_bad_registrations():
    with pytest.raises(ValueError, match="'gcn' is an encoder of this library; choose another name"):
        register_encoder("gcn", encoder)
    with pytest.raises(TypeError, match="build expected a function of the configuration, got str"):
        register_encoder("some", "function")


SHARED = nn.Linear(D, D)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda c: BatchNorm(c.hidden_channels), "keeps torch.int64 in module.num_batches_tracked"),
        (lambda c: nn.Sequential(SHARED, SHARED), "0.weight and 1.weight of the encoder 'own' are the same tensor"),
        (lambda c: Own(c.hidden_channels), r"expected a forward with the arguments \(x, edge_index, .* ConvEncoder"),
    ],
)
def test_modules_that_cannot_be_encoders(build, message, register):
    with pytest.raises(ValueError, match=message):
        register(build)
