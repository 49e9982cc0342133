import math
import statistics

import pytest
import torch

from ghn_pyg import GHN, CheckpointError, GHNConfig
from ghn_pyg.families.deepnets.dataset import DeepNets
from ghn_pyg.training import calibrate, load_config
from ghn_pyg.training.initial_weights import initial_ghn
from tests.training.tiny import GHN3, assert_equal, config, digits, ghn_config, run

CONFIGS = {
    "ghn3": GHNConfig(hidden_channels=16, max_channels=32, max_kernel_size=7, num_classes=10, layers=2, heads=2),
    "ghn2": GHNConfig(encoder="ghn2", hidden_channels=16, max_channels=32, num_classes=10, layers=0, heads=0),
    "mlp": GHNConfig(encoder="mlp", decoder="mlp", hidden_channels=16, max_channels=32, max_kernel_size=7,
                     num_classes=10, layers=0, heads=0),
}  # fmt: skip


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_calibrated_predictions_have_the_variance_of_initial_values(config):
    torch.manual_seed(3)
    ghn, split = GHN(config), DeepNets("train", image_size=16, width=16)
    calibrate(ghn, split[:5])
    ratios = {"classifier": [], "other": []}
    for graph in split[5:12]:
        for name, weight in ghn.predict(graph).items():
            if weight.dim() >= 2 and "pos" not in name and weight[0].numel() > 1:
                last = name.startswith("classifier") and weight.size(0) == 10
                variance = (1 if last else 2) / weight[0].numel()
                ratios["classifier" if last else "other"].append(math.log(float(weight.std()) / math.sqrt(variance)))
    for logs in ratios.values():
        assert abs(statistics.mean(logs)) < 0.3


def test_the_same_network_has_exactly_that_variance():
    torch.manual_seed(5)
    ghn = GHN(CONFIGS["ghn3"])
    (graph,) = DeepNets("train", image_size=16, width=16)[:1]
    calibrate(ghn, [graph])
    last = [spec.name for node, ends in zip(graph.params, graph.classifier.tolist(), strict=True) if ends
            for spec in node if spec.role == "weight"]  # fmt: skip
    weight = ghn.predict(graph)[last[0]]
    assert float(weight.std()) == pytest.approx(weight.size(1) ** -0.5, rel=1e-4)


def test_networks_that_do_not_fit_into_memory_are_not_calibrated_on():
    class Large(GHN):
        def predict(self, graph, **options):
            if graph.num_nodes > limit:
                raise torch.OutOfMemoryError
            return super().predict(graph, **options)

    torch.manual_seed(5)
    ghn, split = GHN(CONFIGS["ghn3"]), DeepNets("train", image_size=16, width=16)[:5]
    large = Large(CONFIGS["ghn3"])
    large.load_state_dict(ghn.state_dict())
    limit = sorted(graph.num_nodes for graph in split)[2]
    small = [graph for graph in split if graph.num_nodes <= limit]
    calibrate(ghn, small)
    calibrate(large, split)
    assert_equal(dict(large.state_dict()), dict(ghn.state_dict()))


def test_nothing_to_calibrate_on():
    with pytest.raises(ValueError, match="expected networks with weights before the classifier"):
        calibrate(GHN(GHN3), [])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a trained GHN."""
    folder = tmp_path_factory.mktemp("trained")
    torch.manual_seed(7)
    GHN(GHN3).save_pretrained(folder)
    return folder


def test_a_run_starts_from_the_weights_of_a_ghn(trained):
    ghn, source = initial_ghn(config(start=str(trained)), digits())
    assert source == f"all weights of {trained}"
    assert_equal(dict(ghn.state_dict()), dict(GHN.from_pretrained(trained).state_dict()))


def test_new_weights_are_a_function_of_the_seed():
    first, second, other = (dict(initial_ghn(config(seed=seed), digits())[0].state_dict()) for seed in (3, 3, 5))
    assert_equal(first, second)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("changes", [{}, {"decoder": "mlp"}])
@pytest.mark.parametrize(("before", "now"), [(7, 10), (24, 10), (10, 24), (7, 11)])  # 24 has an embedding anyway
def test_a_run_starts_from_a_ghn_for_other_classes(tmp_path, changes, before, now):
    old = GHN(ghn_config(num_classes=before, **changes))
    old.save_pretrained(tmp_path)
    same = {"ghn": ghn_config(num_classes=now, **changes)}
    ghn, source = initial_ghn(config(start=str(tmp_path), **same), digits())
    new, _ = initial_ghn(config(**same), digits())
    assert "which is for" in source
    for name, value in ghn.state_dict().items():
        if name != "shape_encoding.channel.weight":
            assert torch.equal(value, (new if ".classifier." in name else old).state_dict()[name])
    # Every channel count has the embedding that it had, and the new number of classes that of the old one.
    rows = [ghn.shape_encoding.channel(ghn.shape_encoding.channel_rows[size]) for size in (0, 1, 3, 64, 1008, now)]
    sizes = (0, 1, 3, 64, 1008, now if now == 24 else before)
    expected = [old.shape_encoding.channel(old.shape_encoding.channel_rows[size]) for size in sizes]
    assert all(map(torch.equal, rows, expected))


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ("digit", r"'digit' is not a file or folder.*did you mean digits"),
        (
            "nowhere/digits/ghn",
            r"Train that one first \(`ghn-pyg train digits --out nowhere/digits`\), or set start to",
        ),
        ("nowhere/mine/ghn", "Train that one, or set start to an existing one, such as digits"),
    ],
)
def test_a_ghn_that_does_not_exist(tmp_path, start, message):
    with pytest.raises(CheckpointError, match=message):
        run(tmp_path, 1, {"ghn": load_config("digits-wide").ghn, "start": start})
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_ghn_of_another_configuration(trained, tmp_path):
    with pytest.raises(CheckpointError, match=r"differs in layers \(1, here 2\); set these fields of ghn"):
        run(tmp_path, 1, {"start": str(trained), "ghn": ghn_config(layers=2)})
