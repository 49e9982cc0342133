import math

import pytest
import torch
from ghn_pyg.training.calibration import calibrate

from ghn_pyg import GHN, GHNConfig
from ghn_pyg.families.deepnets.dataset import DeepNets

CONFIGS = {
    "ghn3": GHNConfig(hidden_channels=16, max_channels=32, max_kernel_size=7, num_classes=10, layers=2, heads=2),
    "ghn2": GHNConfig("ghn2", hidden_channels=16, max_channels=32, num_classes=10, layers=0, heads=0),
    "mlp": GHNConfig("mlp", "mlp", hidden_channels=16, max_channels=32, max_kernel_size=7, num_classes=10, layers=0,
                     heads=0),
}  # fmt: skip


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_predictions_have_the_variance_of_initial_values(config):
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
    for found in ratios.values():
        assert abs(sum(found) / len(found)) < 0.3


def test_the_same_network_gives_exactly_that_variance():
    torch.manual_seed(5)
    ghn = GHN(CONFIGS["ghn3"])
    (graph,) = DeepNets("train", image_size=16, width=16)[:1]
    calibrate(ghn, [graph])
    last = [spec.name for node, ends in zip(graph.params, graph.classifier.tolist(), strict=True) if ends
            for spec in node if spec.role == "weight"]  # fmt: skip
    weight = ghn.predict(graph)[last[0]]
    assert float(weight.std()) == pytest.approx(weight.size(1) ** -0.5, rel=1e-4)


def test_nothing_to_calibrate_on():
    with pytest.raises(ValueError, match="expected networks with weights before the classifier"):
        calibrate(GHN(CONFIGS["ghn3"]), [])
