"""Networks that inherit from trained ones compute what their teachers do, wherever their sizes allow it."""

import copy

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models import ConvNeXt, DenseNet, SwinTransformer, VisionTransformer
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from ghn_pyg import inherit, recalibrate
from ghn_pyg.starts import inheritance

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3), dtype=torch.double)
TOKENS = torch.randint(31, (2, 11), generator=torch.Generator().manual_seed(5))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(3)


def lively(network, seed=1):
    """The network in evaluation mode, in double precision, with gains, biases and statistics that are not trivial."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in (*network.parameters(), *network.buffers()):
            if tensor.is_floating_point() and tensor.dim() < 2:
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
            elif tensor.is_floating_point():
                tensor.add_(0.05 * torch.randn(tensor.shape, generator=generator))
    return network.eval().double()


def difference(student, teacher, inputs):
    with torch.no_grad():
        expected, found = teacher(inputs), student.eval()(inputs)
    return ((found - expected).norm() / expected.norm()).item()


def inherited(student, teacher, inputs=IMAGES):
    """The student and the teacher, and how far their outputs are apart."""
    student, teacher = lively(student, seed=2), lively(teacher)
    before = copy.deepcopy(teacher.state_dict())
    assert inherit(student, teacher, inputs) is student
    torch.testing.assert_close(teacher.state_dict(), before, rtol=0, atol=0)
    return difference(student, teacher, inputs)


class Residual(ResNet):
    """A ResNet of any width."""

    def __init__(self, layers, width, block=BasicBlock, num_classes=7):
        super().__init__(block, layers, num_classes)
        self.inplanes = width
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn1, self.maxpool = nn.BatchNorm2d(width), nn.Identity()
        for stage, count in enumerate(layers):
            setattr(self, f"layer{stage + 1}", self._make_layer(block, width << stage, count, 1 + (stage > 0)))
        self.fc = nn.Linear((width << 3) * block.expansion, num_classes)


def vit(layers=2, heads=3, width=24, mlp=30, size=32):
    return VisionTransformer(size, 8, layers, heads, width, mlp, num_classes=7)


def convnext(width, *blocks):
    widths = [width << i for i in range(len(blocks))]
    following = [*widths[1:], None]
    return ConvNeXt([CNBlockConfig(*each) for each in zip(widths, following, blocks, strict=True)], num_classes=7)


def swin(width, *depths):
    return SwinTransformer([4, 4], width, list(depths), [2, 4], [2, 2], num_classes=7)


class Shuffled(nn.Module):
    """Halves that are computed apart, joined and mixed; groups, gates and a channel count that is given twice."""

    def __init__(self, width):
        super().__init__()
        self.stem = nn.Conv2d(3, 4 * width, 3)
        self.other = nn.Conv2d(2 * width, 2 * width, 1)
        self.groups = nn.Conv2d(4 * width, 4 * width, 3, groups=2)
        self.norm = nn.GroupNorm(2, 4 * width)
        self.gate = nn.Linear(4 * width, 4 * width)
        self.last = nn.Linear(4 * width * 4, 5)

    def forward(self, images):
        x = self.stem(images).relu()
        one, other = x.chunk(2, dim=1)
        x = torch.cat([one, self.other(other).relu()], 1)
        x = x.view(len(x), 2, -1, *x.shape[2:]).transpose(1, 2).flatten(1, 2)
        x = self.norm(self.groups(x)).relu()
        x = x * self.gate(x.mean((2, 3))).sigmoid()[..., None, None]
        return self.last(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1))


class Language(nn.Module):
    """Tokens through an encoder or a recurrent network to logits, tied to the tokens or not."""

    def __init__(self, width, layers=2, tied=False, recurrent=None):
        super().__init__()
        self.tokens, self.places = nn.Embedding(31, width), nn.Embedding(13, width)
        heads = 1 if recurrent else 2
        layer = nn.TransformerEncoderLayer(width, heads, 3 * width, batch_first=True, norm_first=True)
        self.body = (
            recurrent(width, width, layers)
            if recurrent
            else nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        )
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 31, bias=False)
        if tied:
            self.head.weight = self.tokens.weight

    def forward(self, tokens):
        x = self.tokens(tokens) + self.places(torch.arange(tokens.shape[1]))
        x = self.body(x)
        return self.head(self.norm(x[0] if isinstance(x, tuple) else x))


def chain(*widths, norm=False):
    layers = []
    for i, width in enumerate(widths):
        layers.append(nn.Conv2d(([3, *widths])[i], width, 3, padding=1))
        layers += [nn.BatchNorm2d(width)] * norm + [nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 5))


GROWN = {
    "deeper ResNet": (lambda: Residual([2, 3, 2, 1], 6), lambda: Residual([1, 2, 1, 1], 6)),
    "wider ResNet": (lambda: Residual([1, 1, 1, 1], 10), lambda: Residual([1, 1, 1, 1], 6)),
    "both, bottlenecks": (lambda: Residual([1, 2, 1, 1], 8, Bottleneck), lambda: Residual([1, 1, 1, 1], 4, Bottleneck)),
    "deeper ViT": (lambda: vit(layers=5), lambda: vit(layers=2)),
    "ViT with more heads": (lambda: vit(heads=6, width=48), vit),
    "ViT with wider heads": (lambda: vit(width=48, mlp=61), vit),
    "ConvNeXt": (lambda: convnext(8, 2, 3), lambda: convnext(4, 1, 2)),
    "Swin": (lambda: swin(16, 2, 4), lambda: swin(8, 2, 2)),
    "DenseNet, deeper": (
        lambda: DenseNet(6, (2, 3), 10, num_classes=7),
        lambda: DenseNet(6, (2, 2), 10, num_classes=7),
    ),
    "DenseNet, wider": (lambda: DenseNet(6, (2, 2), 10, num_classes=7), lambda: DenseNet(3, (2, 2), 5, num_classes=7)),
    "halves, shuffles, groups": (lambda: Shuffled(6), lambda: Shuffled(3)),
    "chain": (lambda: chain(5, 5, 5, 7), lambda: chain(5, 7)),
    "chain with norms": (lambda: chain(5, 5, 7, norm=True), lambda: chain(5, 7, norm=True)),
    "larger kernels": (
        lambda: nn.Sequential(nn.Conv2d(3, 5, 7, padding=3), nn.Flatten(), nn.Linear(5 * 1024, 3)),
        lambda: nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.Flatten(), nn.Linear(5 * 1024, 3)),
    ),
}


@pytest.mark.parametrize("name", GROWN)
def test_a_grown_network_computes_what_its_teacher_does(name):
    larger, smaller = GROWN[name]
    assert inherited(larger(), smaller()) < 1e-6


@pytest.mark.parametrize(
    ("larger", "smaller"),
    [
        (lambda: Language(8, layers=4), lambda: Language(8)),
        (lambda: Language(16), lambda: Language(8)),
        (lambda: Language(16, tied=True), lambda: Language(8, tied=True)),
        (lambda: Language(10, recurrent=nn.LSTM), lambda: Language(5, recurrent=nn.LSTM)),
        (lambda: Language(10, recurrent=nn.GRU), lambda: Language(5, recurrent=nn.GRU)),
    ],
    ids=["deeper", "wider", "tied", "LSTM", "GRU"],
)
def test_a_grown_language_model_computes_what_its_teacher_does(larger, smaller):
    assert inherited(larger(), smaller(), TOKENS) < 1e-6


@pytest.mark.parametrize("recurrent", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_grow_in_single_precision(recurrent):
    """There, LSTMs run in one operator."""
    larger, smaller = (lively(Language(width, recurrent=recurrent)).float() for width in (10, 5))
    inherit(larger, smaller, TOKENS)
    assert difference(larger, smaller, TOKENS) < 1e-5


def test_copies_of_a_channel_learn_apart():
    teacher, student = chain(5, 7), chain(10, 14)
    inherit(student, teacher, IMAGES.float())
    student(IMAGES.float()).square().sum().backward()
    gradients = student[0].weight.grad.flatten(1)
    assert torch.equal(student[0].weight[0], student[0].weight[1])
    assert torch.nn.functional.cosine_similarity(gradients[::2], gradients[1::2]).max() < 0.999


def test_narrower_network_keeps_what_its_teacher_says():
    """Channels that say the same are no loss: a grown network that is cut back computes the same."""
    small, large, back = lively(chain(5, 7)), lively(chain(15, 21)), lively(chain(5, 7), seed=4)
    images = torch.randn(64, 3, 8, 8, dtype=torch.double)
    inherit(large, small, images)
    inherit(back, large, images)
    assert difference(back, small, images) < 0.1 < difference(lively(chain(5, 7), seed=4), small, images)


def test_another_number_of_classes_keeps_the_classifier():
    teacher, student = Residual([1, 1, 1, 1], 6), Residual([2, 1, 1, 1], 6, num_classes=11)
    plan = inheritance(student, teacher, IMAGES.float())
    assert plan.own == ("fc.weight", "fc.bias")
    assert plan.identities == {"layer1.1.bn2.weight", "layer1.1.bn2.bias"}
    assert plan.sources["layer1.0.conv1.weight"] == "layer1.0.conv1.weight"
    assert "2 parameters keep their values: fc.weight, fc.bias" in str(plan)


def test_positions_are_interpolated_behind_the_class_token():
    teacher, student = vit(), vit(size=64)
    inherit(student, teacher, None)
    theirs, ours = teacher.encoder.pos_embedding, student.encoder.pos_embedding
    torch.testing.assert_close(ours[:, 0], theirs[:, 0])
    grid = theirs[0, 1:].view(4, 4, -1)
    torch.testing.assert_close(ours[0, 1:].view(8, 8, -1)[0, 0], grid[0, 0])
    torch.testing.assert_close(ours[0, 1:].view(8, 8, -1).mean((0, 1)), grid.mean((0, 1)))


def test_tables_keep_their_rows():
    teacher, student = Language(8).eval(), Language(8).eval()
    student.places = nn.Embedding(29, 8)
    inherit(student, teacher, TOKENS)
    torch.testing.assert_close(student.places.weight[:13], teacher.places.weight)
    torch.testing.assert_close(student(TOKENS[:, :7]), teacher(TOKENS[:, :7]))


def test_another_family_is_aligned_layer_by_layer():
    teacher, student = Residual([1, 1, 1, 1], 8), torchvision.models.mobilenet_v3_small(num_classes=7)
    plan = inheritance(student, teacher, IMAGES.float())
    assert plan.sources["features.0.0.weight"] == "conv1.weight"
    assert plan.sources["features.0.1.running_var"] == "bn1.running_var"
    inherit(student, teacher, IMAGES.float())
    recalibrate(student, [IMAGES.float()])
    assert student(IMAGES.float()).isfinite().all()


def test_blocks_without_a_counterpart_of_their_last_layer_begin_as_identities():
    teacher, student = Residual([1, 2, 1, 1], 6), Residual([1, 2, 1, 1], 6, Bottleneck)
    plan = inheritance(student, teacher, IMAGES.float())
    assert plan.identities == {"layer2.1.bn3.weight", "layer2.1.bn3.bias"}
    assert plan.sources["layer2.1.conv2.weight"] == "layer2.1.conv2.weight"


def test_the_same_network_is_copied():
    teacher, student = lively(Residual([1, 1, 1, 1], 6)), Residual([1, 1, 1, 1], 6)
    modes = [module.training for module in student.modules()]
    inherit(student.double(), teacher, IMAGES)
    torch.testing.assert_close(student.state_dict(), teacher.state_dict(), rtol=0, atol=0)
    assert [module.training for module in student.modules()] == modes


class Counting(nn.Linear):
    """A layer that counts its calls."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.register_buffer("calls", torch.zeros(3))

    def forward(self, inputs):
        self.calls += 1
        return super().forward(inputs)


def test_networks_and_generators_stay_as_they_are():
    teacher, student, state = Counting(3, 5), Counting(3, 5).eval(), torch.get_rng_state()
    inherit(student, teacher, torch.zeros(2, 3, device="meta"))
    assert (teacher.training, student.training) == (True, False)
    assert teacher.calls.tolist() == student.calls.tolist() == [0, 0, 0]
    assert torch.equal(torch.get_rng_state(), state)


def test_bad_input_changes_nothing():
    student, teacher = chain(5, 7), chain(5, 7)
    before = copy.deepcopy(student.state_dict())
    with pytest.raises(ValueError, match="pass example_inputs that it accepts"):
        inherit(student, teacher, torch.zeros(1, 5, 8, 8))
    with pytest.raises(TypeError, match=r"torch\.nn\.Module"):
        inherit(student, teacher.state_dict(), IMAGES.float())
    with pytest.raises(ValueError, match="without memory"):
        inherit(student, chain(5, 7).to("meta"), IMAGES.float())
    with pytest.raises(ValueError, match="no parameter of Sequential has a counterpart in Linear"):
        inherit(nn.Sequential(nn.PReLU()), nn.Linear(3, 4), torch.zeros(2, 3))
    torch.testing.assert_close(student.state_dict(), before, rtol=0, atol=0)
