import pytest
import torch
from torch import nn

from ghn_pyg.nn import Blocks, GraphormerLayer, GraphTransformer, SparseGraphormerLayer, SpatialEncoding
from tests.properties import ENCODER_PROPERTIES, TOLERANCE, assert_close, join, name_of, unequal_graphs

D, HEADS = 12, 3


class Encoder(nn.Module):
    """Layers with options, called as an encoder is."""

    def __init__(self, **options):
        super().__init__()
        self.spatial = SpatialEncoding(HEADS, 5, directed=True)
        self.layers = GraphTransformer(D, 2, HEADS, **options)

    def forward(self, x, edge_index, distance, batch=None):
        blocks = Blocks.of(batch, len(x))
        return self.layers(x, blocks, self.spatial(distance, blocks))


OPTIONS = {
    "post-norm": {"norm_first": False},
    "rms": {"norm": "rms", "qkv_bias": True},
    "graph": {"norm": "graph", "norm_first": False},
    "narrow": {"ff_channels": 7, "activation": "relu", "out_bias": False},
}
# Of a single node graph norm leaves nothing, and no gradient.
LACKING = {"graph": ("gradients_are_finite",)}
CASES = [
    (holds, kind) for kind in OPTIONS for holds in ENCODER_PROPERTIES if holds.__name__ not in LACKING.get(kind, ())
]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(("holds", "kind"), CASES, ids=lambda part: part if isinstance(part, str) else name_of(part))
def test_properties_with_options(holds, kind, dtype):
    torch.manual_seed(3)
    holds(Encoder(**OPTIONS[kind]).to(dtype), D)


def test_the_formula_of_post_norm():
    torch.manual_seed(3)
    layer = GraphormerLayer(D, HEADS, norm_first=False, ff_channels=7, activation="relu", qkv_bias=True)
    nn.init.normal_(layer.qkv.bias)
    x = torch.randn(5, D)
    q, k, v = (part.view(5, HEADS, -1) for part in layer.qkv(x).split(D, dim=1))
    weight = (torch.einsum("ihc,jhc->hij", q, k) / 2).softmax(-1)
    y = layer.norm1(x + layer.out(torch.einsum("hij,jhc->ihc", weight, v).reshape(5, D)))
    expected = layer.norm2(y + layer.ff[2](layer.ff[0](y).relu()))
    found, (weights,) = layer(x, return_attention_weights=True)
    assert_close(found, expected, 1e-5)
    assert_close(weights[0], weight, 1e-5)


def test_batch_norm_is_over_all_nodes():
    layer = GraphormerLayer(D, HEADS, norm="batch")
    layer(torch.randn(7, D) + 5, torch.tensor([0, 0, 0, 1, 1, 1, 1]))
    assert layer.norm1.running_mean.mean().item() == pytest.approx(0.5, abs=0.1)


def test_weights_of_all_layers():
    stack, (x, _, distance, batch) = GraphTransformer(D, 2, HEADS), join(unequal_graphs(D, torch.float32))
    blocks = Blocks.of(batch, len(x))
    found, weights = stack(x, blocks, SpatialEncoding(HEADS)(distance, blocks), return_attention_weights=True)
    assert_close(found, stack(x, blocks, SpatialEncoding(HEADS)(distance * 0 + distance, blocks)), 1e3)
    for layer in weights:
        for block, part in zip(blocks, layer, strict=True):
            assert part.shape == (block.count, HEADS, block.size, block.size)
            assert_close(part.sum(-1), torch.ones(part.shape[:-1]), 1e-5)
            if block.mask is not None:
                assert not part.transpose(1, 3)[~block.mask].any()


def test_paths_are_dropped_by_graph():
    torch.manual_seed(3)
    layer = GraphormerLayer(D, HEADS, path_dropout=0.5)
    x, batch = torch.randn(60, D), torch.arange(20).repeat_interleave(3)
    found = layer(x, batch)
    same = (found == x).all(1).view(20, 3)
    assert same.all(1).equal(same.any(1))
    assert 0 < same.all(1).sum() < 15
    mean = torch.stack([layer.drop(torch.ones(60, 1), Blocks.of(batch, 60)).mean() for _ in range(99)]).mean()
    assert mean.item() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("name", ["dropout", "attention_dropout", "hidden_dropout", "path_dropout"])
@pytest.mark.parametrize("layer", [GraphormerLayer, SparseGraphormerLayer])
def test_each_dropout_drops_in_training_only(layer, name):
    torch.manual_seed(3)
    one, x = layer(D, HEADS, **{name: 0.5}), torch.randn(9, D)
    given = (x, torch.cartesian_prod(torch.arange(9), torch.arange(9)).t()) if layer is SparseGraphormerLayer else (x,)
    results = [one(*given) for _ in range(5)]
    assert not all(torch.equal(results[0], other) for other in results[1:])
    one.eval()
    assert torch.equal(one(*given), one(*given))
    with pytest.raises(ValueError, match=f"{name} must be from 0 to less than 1, got 1"):
        layer(D, HEADS, **{name: 1})


def test_norms_have_names():
    with pytest.raises(ValueError, match="norm expected one of layer, batch, rms, graph, got 'instance'"):
        GraphormerLayer(D, HEADS, norm="instance")


def test_options_are_shown():
    assert repr(GraphormerLayer(8, 2, 0.1, attention_dropout=0.3, path_dropout=0.2, norm_first=False)).startswith(
        "GraphormerLayer(\n  heads=2, dropout=0.1, attention_dropout=0.3, path_dropout=0.2, norm_first=False\n"
    )
