import pytest
import timm
import torch
import transformers
from torch import nn
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.ops import StochasticDepth

from ghn_pyg.families.deepnets import DeepNets
from ghn_pyg.families.deepnets.network import Network
from ghn_pyg.finetuning.drop_path import drop_path_blocks, set_drop_path


def deepnets():
    return Network(DeepNets("test", num_classes=7, image_size=32, width=8)[2].architecture, 7, 32)


def convnext():
    return ConvNeXt([CNBlockConfig(8, 16, 2), CNBlockConfig(16, None, 1)], layer_scale=1.0, num_classes=7)


def swin():
    sizes = {"embed_dim": 8, "depths": [1, 2], "num_heads": [1, 2], "window_size": 4, "image_size": 32, "patch_size": 4}
    return transformers.SwinForImageClassification(transformers.SwinConfig(**sizes, num_labels=7))


@pytest.mark.parametrize("make", [
    lambda: timm.create_model("test_vit", img_size=32), lambda: timm.create_model("test_resnet", zero_init_last=False),
    lambda: timm.create_model("test_vit", img_size=32, drop_path_rate=0.2), convnext, swin, deepnets,
], ids=["timm's ViT", "timm's ResNet", "timm's own rates", "torchvision", "Transformers", "DeepNets"])  # fmt: skip
def test_branches_are_dropped_in_training_alone(make):
    torch.manual_seed(3)
    network = make()
    images = torch.rand(2, 3, 32, 32)
    before = {name: value.shape for name, value in network.state_dict().items()}

    def outputs(training, *seeds):
        network.train(training)
        found = []
        for seed in seeds:
            torch.manual_seed(seed)
            outputs = network(images)
            found.append(outputs if isinstance(outputs, torch.Tensor) else outputs.logits)
        return found

    set_drop_path(network, 0.0)
    expected = outputs(False, 5)
    set_drop_path(network, 0.5)
    torch.testing.assert_close(outputs(False, 7), expected)
    dropped = outputs(True, 5, 7, 11)
    rates = [getattr(block, name).p for block, names in drop_path_blocks(network) for name in names]
    assert rates == sorted(rates)
    assert (rates[0], rates[-1]) == (0, 0.5)
    set_drop_path(network, 0.0)
    (plain,) = outputs(True, 5)
    assert any((one - plain).abs().max() > 1e-3 for one in dropped)
    assert {name: value.shape for name, value in network.state_dict().items()} == before


def test_rates():
    class Block(nn.Module):
        def __init__(self, first):
            super().__init__()
            self.drop_path, self.drop_path2, self.drop_path_rate = first, nn.Identity(), None

    network = nn.Sequential(Block(None), Block(nn.Identity()), nn.Identity(), Block(StochasticDepth(0.7, "batch")))
    for _ in range(2):
        set_drop_path(network, 0.2)
        assert [(block.drop_path.p, block.drop_path2.p) for block in (network[0], network[1], network[3])] == [
            (0, 0), (0.1, 0.1), (0.2, 0.2)
        ]  # fmt: skip
    assert not drop_path_blocks(nn.Sequential(nn.Identity(), nn.Dropout(0.5), timm.layers.DropBlock2d(0.5)))
    set_drop_path(network[0], 0.3)
    assert network[0].drop_path.p == 0.3
