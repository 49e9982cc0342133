import pytest
import torch
from torch import nn
from torch_geometric.data import Batch
from torch_geometric.nn.inits import reset

from ghn_pyg import GHN, CheckpointError, GHNConfig, from_module, register_encoder
from ghn_pyg.models.checkpoints.infer_config import checked_config
from ghn_pyg.models.encoders import ENCODERS
from ghn_pyg.nn import Blocks, ConvEncoder
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
def test_parameters_are_drawn_as_the_constructor_does(name):
    torch.manual_seed(7)
    new, ghn = GHN(config(name)), GHN(config(name))
    torch.manual_seed(7)
    ghn.reset_parameters()
    for one, two in zip(ghn.parameters(), new.parameters(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("name", OTHERS)
def test_an_encoder_draws_all_of_its_parameters_anew(name):
    one = encoder(name)
    for parameter in one.parameters():
        nn.init.constant_(parameter, 7.0)
    reset(one)
    kept = [key for key, parameter in one.named_parameters() if (parameter == 7).all()]
    assert not [key for key in kept if "attn.out_proj" not in key]  # PyG's GPSConv leaves it


class Spy(nn.Module):
    """Notes where its arguments are."""

    def forward(self, *arguments):
        self.devices = [argument.device.type for argument in arguments]
        return arguments[0]


def test_a_batch_goes_where_the_ghn_is():
    """The device without memory stands in for a GPU."""
    ghn = GHN(config("mlp")).to("meta")
    ghn.encoder = Spy()
    ghn.embed([graph(), from_module(vision(), IMAGES)])
    assert ghn.encoder.devices == ["meta"] * 4


def test_blocks_of_unequal_graphs_are_where_they_should_be():
    graphs = Batch.from_data_list([graph(), from_module(vision(), IMAGES), graph()])
    blocks = Blocks.of_sizes(graphs.graph_sizes, "meta")
    parts = (torch.zeros(graphs.num_nodes, D), graphs.edge_index, graphs.distance)
    assert encoder("ghn3").to("meta")(*[part.to("meta") for part in parts], blocks).device.type == "meta"
    tokens = blocks.with_tokens()
    assert tokens.join(tokens.split(torch.zeros(sum(tokens.sizes), D, device="meta"))).device.type == "meta"


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


def test_a_name_stands_for_what_it_was_given_last(own):
    register_encoder("own", lambda c: ConvEncoder(c.hidden_channels, [nn.Linear(1, 1), nn.Linear(1, 1)]), layers=False)
    assert len(GHN(config(own)).encoder.layers) == 2


def test_names_of_the_library_stay():
    with pytest.raises(ValueError, match="this library has an encoder 'gcn' already; choose another name"):
        register_encoder("gcn", encoder)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("gcn", {"layers": 0}, "GHNConfig.layers must be an integer of at least 1, got 0"),
        ("gps", {"heads": 0}, "GHNConfig.heads must be an integer of at least 1, got 0"),
        ("gatv2", {"heads": 5}, "GHNConfig.hidden_channels must be a multiple of heads, got 12 and 5"),
        ("gatv3", {}, r"GHNConfig.encoder must be one of ghn3, .*, got 'gatv3'; did you mean gatv2"),
        ("unheard of", {}, "register_encoder, in a module for --import, makes others known"),
    ],
)
def test_configurations_that_do_not_fit(name, changes, message):
    with pytest.raises(ValueError, match=message):
        GHNConfig(name, **{"hidden_channels": D, "layers": 2, "heads": 3, **changes})


@pytest.mark.parametrize("name", ["", "a/b", "../x", ".hidden", 3])
def test_names_that_are_none(name):
    with pytest.raises(ValueError, match="an encoder's name expected letters, digits"):
        register_encoder(name, encoder)


def test_no_function():
    with pytest.raises(TypeError, match="build expected a function of the configuration, got str"):
        register_encoder("some", "function")


class Odd(nn.Module):
    """Holds a buffer that no file does."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(D, D)
        self.register_buffer("shift", torch.full((1,), 3), persistent=False)

    def forward(self, x, edge_index, distance, batch=None):
        return self.linear(x) + self.shift


@pytest.fixture
def register():
    names = []

    def add(build):
        names.append(f"odd{len(names)}")
        register_encoder(names[-1], build, layers=False)
        return names[-1]

    yield add
    for name in names:
        del ENCODERS[name]


def test_buffers_that_are_not_saved(register, tmp_path):
    ghn = GHN(config(register(lambda c: Odd()))).eval()
    ghn.save_pretrained(tmp_path)
    assert torch.equal(GHN.from_pretrained(tmp_path).predict(graph())["0.weight"], ghn.predict(graph())["0.weight"])


def test_what_checkpoints_do_not_hold(register):
    norm = register(lambda c: nn.BatchNorm1d(c.hidden_channels))
    with pytest.raises(ValueError, match=f"the encoder '{norm}' keeps torch.int64 in num_batches_tracked"):
        GHN(config(norm))
    layer = nn.Linear(D, D)
    twice = register(lambda c: nn.Sequential(layer, layer))
    with pytest.raises(ValueError, match=f"0.weight and 1.weight of the encoder '{twice}' are the same tensor"):
        GHN(config(twice))


def test_modules_that_are_no_encoders(register):
    bare = register(lambda c: Own(c.hidden_channels))
    with pytest.raises(ValueError, match=rf"'{bare}' expected to be called as encoder\(x, edge_index, .* ConvEncoder"):
        GHN(config(bare))


@pytest.mark.parametrize("field", ["layers", "hidden_channels"])
def test_a_configuration_far_larger_than_the_file(field):
    ghn = GHN(config("gcn"))
    with pytest.raises(CheckpointError, match=r"its configuration says .*1000000000"):
        checked_config({**ghn.config.to_dict(), field: 10**9}, ghn.state_dict())
    with pytest.raises(CheckpointError, match="its configuration is not valid"):
        checked_config({**ghn.config.to_dict(), "encoder": ["gcn"]}, ghn.state_dict())
