import pytest
import timm
import torch
from safetensors.torch import save_file
from torchvision.models import ResNet18_Weights, resnet18

from ghn_pyg.finetuning.pretrained_weights import load_pretrained
from ghn_pyg.zoo.build import build_network
from ghn_pyg.zoo.small_images import adapt_to_small_inputs


@pytest.fixture
def weights():
    torch.manual_seed(3)
    return resnet18().state_dict()


@pytest.mark.parametrize("kind", ["safetensors", "torch", "library"])
def test_torchvision(weights, tmp_path, monkeypatch, kind):
    path = "default"
    if kind == "safetensors":
        save_file(weights, path := tmp_path / "weights.safetensors")
    elif kind == "torch":
        torch.save(weights, path := tmp_path / "weights.pth")
    else:
        monkeypatch.setattr(ResNet18_Weights, "get_state_dict", lambda *_, **__: weights)
    network = adapt_to_small_inputs(resnet18(num_classes=7))
    before = network.fc.weight.clone()
    assert load_pretrained(network, "resnet18", path) == ["fc.weight", "fc.bias"]
    assert torch.equal(network.fc.weight, before)
    assert torch.equal(network.conv1.weight, weights["conv1.weight"][:, :, 2:5, 2:5])
    assert torch.equal(network.layer4[1].conv2.weight, weights["layer4.1.conv2.weight"])


def test_timm(monkeypatch):
    torch.manual_seed(3)
    whole, real, asked = timm.create_model("test_resnet"), timm.create_model, []

    def create(name, pretrained, **options):
        asked.append(pretrained)
        return whole if pretrained else real(name, **options)

    monkeypatch.setattr(timm, "create_model", create)
    network = build_network("timm/test_resnet", num_classes=7).network
    assert load_pretrained(network, "timm/test_resnet", image_size=16) == ["fc.weight", "fc.bias"]
    assert asked == [False, True]
    assert torch.equal(network.conv1[0].weight, whole.conv1[0].weight)


def test_weights_that_do_not_fit(weights, tmp_path):
    network = build_network("alexnet").network
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    torch.save(weights, tmp_path / "weights.pth")
    (tmp_path / "damaged.pth").write_bytes(b"damaged")
    (tmp_path / "damaged.safetensors").write_bytes(b"damaged")
    torch.save([3], tmp_path / "list.pth")
    for name, message in [
        ("weights.pth", "are not of alexnet: 16 of 16 parameters"),
        ("damaged.pth", "cannot read"),
        ("damaged.safetensors", "cannot read"),
        ("list.pth", "expected a state dict"),
    ]:
        with pytest.raises(ValueError, match=message):
            load_pretrained(network, "alexnet", tmp_path / name)
    with pytest.raises(FileNotFoundError):
        load_pretrained(network, "alexnet", tmp_path / "none.pth")
    with pytest.raises(ValueError, match="give a file"):
        load_pretrained(network, "hf/resnet")
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)
