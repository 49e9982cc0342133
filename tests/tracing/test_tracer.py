import math
import warnings

import networkx as nx
import pytest
import torch
import torch.nn.functional as F
import torch_geometric.nn
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ghn_pyg import from_module
from tests.tracing.helpers import kinds, network, weight
from tests.tracing.rules.helpers import linear

X = torch.rand(2, 3, 5)
LAYERS = ["input", "a.weight", "a.bias", "b.weight", "b.bias"]


def between(use, **members):
    """The graph of a layer, ``use`` of its result, and another layer."""
    model = network(
        lambda self, x: self.b(use(self, self.a(x))), **{"a": nn.Linear(5, 5), "b": nn.Linear(5, 7), **members}
    )
    return from_module(model, X)


# --- what does not depend on the input is computed as usual ----------------------------------------------------------

CONSTANTS = {
    "zeros": lambda: torch.zeros(3),
    "ones": lambda: torch.ones(2, 3),
    "full": lambda: torch.full((3,), 7.0),
    "arange": lambda: torch.arange(7),
    "tensor": lambda: torch.tensor([3.0, 5.0]),
    "as_tensor": lambda: torch.as_tensor(3),
    "eye": lambda: torch.eye(5),
    "linspace": lambda: torch.linspace(0, 1, 7),
    "triu": lambda: torch.ones(5, 5).triu(1),
    "meshgrid": lambda: torch.stack(torch.meshgrid(torch.arange(3), torch.arange(5), indexing="ij")),
    "outer": lambda: torch.outer(torch.arange(3.0), torch.arange(5.0)).sin(),
    "slices": lambda: torch.zeros(5, 7).index_fill_(0, torch.tensor([1]), 3.0)[1:3],
    "comparison": lambda: (torch.arange(5)[:, None] >= torch.arange(5)).float(),
    "polar": lambda: torch.polar(torch.ones(3), torch.arange(3.0)),
}


@pytest.mark.parametrize("make", CONSTANTS.values(), ids=CONSTANTS)
def test_constants_are_real(make):
    seen = []

    def use(self, x):
        seen.append(make())
        return x + seen[-1].sum().item() if not seen[-1].is_complex() else x

    assert between(use).node_names == LAYERS
    assert torch.equal(seen[0], make())


@pytest.mark.parametrize("place", ["cpu", "meta"])
def test_constants_on_the_device_of_a_network_are_real(place):
    seen = []

    def forward(self, x):
        mask = torch.arange(x.size(1), device=self.a.weight.device) < 2
        seen.append(mask.tolist())
        return self.a(x)[:, mask]

    graph = from_module(network(forward, a=nn.Linear(5, 7)).to(place), X)
    assert graph.node_names == ["input", "a.weight", "a.bias"]
    assert seen[0] == [True, True, False]


def test_buffers_are_real():
    seen = []

    def use(self, x):
        if self.ready:
            seen.append((self.steps.item(), self.mask.tolist(), self.order[self.mask].tolist()))
        return x[:, : self.steps]

    graph = between(
        use, ready=torch.tensor(True), steps=torch.tensor(2), order=torch.arange(3),
        mask=torch.tensor([True, False, True]),
    )  # fmt: skip
    assert graph.node_names == LAYERS
    assert seen[0] == (2, [True, False, True], [0, 2])


SHAPES = {
    "unpacked": lambda self, x: x.view(*x.shape[:2], -1),
    "arithmetic": lambda self, x: x.reshape(x.shape[0] * x.size(1), x.size(-1)),
    "branch on rank": lambda self, x: x.flatten(0, 1) if x.dim() == 3 else x[0],
    "branch on size": lambda self, x: x if x.shape[1] % 2 else F.pad(x, (0, 0, 0, 1)),
    "a root": lambda self, x: x[:, : math.isqrt(x.size(1) ** 2)],
    "a number of tokens": lambda self, x: x * torch.arange(x.size(1))[:, None] / x.numel(),
    "length": lambda self, x: x[: len(x) - 1],
    "a loop": lambda self, x: torch.stack([x[:, step] for step in range(x.size(1))], 1),
    "iteration": lambda self, x: torch.stack(list(x)),
    "unbind": lambda self, x: sum(x.unbind(1)),
    "an assertion": lambda self, x: x if x.shape[-1] == 5 and x.ndim == 3 else None,
    "a list of sizes": lambda self, x: x.new_zeros(list(x.shape)) + x,
    "a size that is a tensor": lambda self, x: x.new_zeros((x.shape[0], torch.tensor(x.shape[1]) // 1, x.shape[2])) + x,
    "strides": lambda self, x: x.as_strided(size=(*x.shape[:2], torch.tensor(x.shape[2])), stride=x.stride()),
    "type": lambda self, x: x.to(self.a.weight.dtype) if x.is_floating_point() and x.dtype is torch.float32 else None,
    "device": lambda self, x: x + torch.zeros(5, device=self.a.weight.device, dtype=self.a.weight.dtype),
    "like a parameter": lambda self, x: x.to(next(self.parameters())),
    "contiguous": lambda self, x: x.mT.contiguous().mT if x.is_contiguous() else x.contiguous(),
    "gradient": lambda self, x: x if not x.requires_grad else x.detach(),
    "print": lambda self, x: x if f"{x}" and repr(x) else None,
}


@pytest.mark.parametrize("use", SHAPES.values(), ids=SHAPES)
def test_shapes_and_types_may_be_asked_for(use):
    assert between(use).node_names == LAYERS


def test_large_and_random_tensors_have_no_data():
    seen = []

    def use(self, x):
        seen.extend(
            [torch.zeros(100_003, 100_003), torch.rand(67), torch.randn_like(x), torch.empty(100_003, 11).normal_()]
        )
        return x * seen[1].sum()

    assert between(use).node_names == LAYERS
    assert [tensor.is_meta for tensor in seen[:4]] == [True] * 4


# --- functions without a rule ----------------------------------------------------------------------------------------

FOLDED = {
    "squeeze": lambda self, x: x.unsqueeze(0).squeeze(0),
    "expand": lambda self, x: x.unsqueeze(0).expand(2, -1, -1, -1)[0],
    "repeat": lambda self, x: x.repeat(1, 2, 1),
    "roll": lambda self, x: torch.roll(x, 1, 1),
    "gather": lambda self, x: x.gather(1, torch.zeros(2, 3, 5, dtype=torch.long)),
    "index_select": lambda self, x: x.index_select(1, torch.tensor([2, 0])),
    "sort": lambda self, x: x.sort(1).values,
    "topk": lambda self, x: x.topk(2, 1)[0],
    "max": lambda self, x: x.max(1).values,
    "amax": lambda self, x: x.amax((1,), keepdim=True),
    "sum": lambda self, x: x.sum(1),
    "norm": lambda self, x: x / x.norm(dim=-1, keepdim=True),
    "var": lambda self, x: x / (x.var(-1, keepdim=True) + 1e-6).sqrt(),
    "where": lambda self, x: torch.where(x > 0, x, torch.zeros_like(x)),
    "masked_fill": lambda self, x: x.masked_fill(x > 0, 3.0),
    "boolean assignment": lambda self, x: x.clone().masked_fill_(x < 0, 0),
    "index assignment": lambda self, x: x.index_fill(1, torch.tensor([1]), 0.0),
    "interpolate": lambda self, x: F.interpolate(x, 5, mode="linear"),
    "pad": lambda self, x: F.pad(x, (0, 0, 1, 1)),
    "unfold": lambda self, x: x.unfold(1, 2, 1)[..., 0],
    "glu": lambda self, x: F.glu(torch.cat([x, x], -1)),
    "prelu": lambda self, x: F.prelu(x, torch.full((3,), 0.1)),
    "fft": lambda self, x: torch.fft.irfft(torch.fft.rfft(x, dim=-1), n=5, dim=-1),
    "complex": lambda self, x: torch.view_as_real(torch.view_as_complex(torch.stack([x, x], -1)) * 1j).sum(-1),
    "cumsum": lambda self, x: x.cumsum(1),
    "gumbel": lambda self, x: F.gumbel_softmax(x, hard=True),
    "normal": lambda self, x: torch.distributions.Normal(x, x.exp(), validate_args=True).rsample(),
    "detach": lambda self, x: x + (x.sign() - x).detach(),
    "tensordot": lambda self, x: torch.tensordot(x, torch.eye(5), dims=1),
    "cdist": lambda self, x: torch.cdist(x, torch.ones(5, 5)),
    "script": lambda self, x: SCRIPT(x),
    "checkpoint": lambda self, x: checkpoint(torch.relu, x, use_reentrant=False),
    "vmap": lambda self, x: torch.func.vmap(torch.relu)(x),
    "autograd function": lambda self, x: Swish.apply(x),
    "no_grad": lambda self, x: torch.no_grad()(torch.relu)(x),
    "autocast": lambda self, x: torch.autocast("cpu", dtype=torch.bfloat16)(torch.relu)(x),
}  # fmt: skip


class Swish(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x.sigmoid()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def _swish(x: Tensor) -> Tensor:
    return x * x.sigmoid()


with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    SCRIPT = torch.jit.script(_swish)


@pytest.mark.parametrize("use", FOLDED.values(), ids=FOLDED)
def test_functions_without_a_node_are_folded_away(use):
    model = network(lambda self, x: self.b(use(self, self.a(x))), a=nn.Linear(5, 5), b=nn.Linear(5, 7))
    assert model(X).shape[-1] == 7
    graph = from_module(model, X)
    assert graph.node_names == LAYERS
    assert graph.edge_index.tolist() == [[0, 1, 2, 3], [1, 2, 3, 4]]


def test_a_parameter_in_an_unknown_function_is_kept_with_its_name():
    graph = between(lambda self, x: torch.hypot(x, self.other), other=weight(5))
    assert graph.kept == {"other": "it enters hypot, for which the vocabulary has no node type"}


def test_a_constant_that_activations_are_written_into_is_an_activation():
    def use(self, x):
        out = torch.zeros(2, 3, 5)
        out[:, :2] = x[:, :2]
        return out

    assert between(use).node_names == LAYERS


WRITES = {
    "data": lambda memory, y: memory.data.copy_(y),
    "part of data": lambda memory, y: memory.data.__setitem__((..., 0), y[:, 0]),
    "detach": lambda memory, y: memory.detach().add_(y),
    "a view made before": lambda memory, y: memory.view(-1).detach()[:10].copy_(y.flatten()),
    "numbered": lambda memory, y: memory.index_copy_(0, torch.tensor([1, 0]), y),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
@pytest.mark.parametrize("make", [lambda self, x: torch.zeros(2, 5), lambda self, x: self.b(x)], ids=["new", "layer"])
def test_writes_reach_all_tensors_of_the_memory(make, write):
    def forward(self, x):
        memory = make(self, x)
        write(memory, self.a(x))
        return self.c(memory)

    graph = from_module(network(forward, a=linear(), b=linear(), c=linear()), torch.rand(2, 5))
    assert nx.has_path(graph.to_networkx(), *map(graph.node_names.index, ("a.weight", "c.weight")))


def cached(self, x):
    self.cache[:, :2].copy_(self.a(x))
    return self.c(self.cache[:, 1:])


def averaged(self, x):
    self.cache.mul_(0.9).add_(self.a(x).mean(1, keepdim=True), alpha=0.1)
    return self.c(self.cache)


def aliased(self, x):
    cache = self.cache.detach()
    cache[:, :2] = self.a(x)
    return self.c(self.cache)


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("forward", [cached, averaged, aliased])
def test_what_is_written_into_a_buffer_is_read_from_it(forward, device):
    model = network(forward, a=linear(), c=linear(), cache=torch.zeros(2, 3, 5))
    graph = from_module(model.to(device), torch.rand(2, 2, 5))
    assert nx.has_path(graph.to_networkx(), *map(graph.node_names.index, ("a.weight", "c.weight")))
    assert device == "meta" or not model.cache.any()


def test_a_buffer_that_was_read_before_it_is_written_into_is_a_constant():
    def forward(self, x):
        x = self.a(x) - self.cache
        self.cache.copy_(x)
        return self.c(x)

    graph = from_module(network(forward, a=linear(), c=linear(), cache=torch.zeros(2, 5)), torch.rand(2, 5))
    assert graph.node_names == ["input", "a.weight", "c.weight"]


# --- whole networks --------------------------------------------------------------------------------------------------


def encoder(**options):
    layer = nn.TransformerEncoderLayer(6, 2, 11, batch_first=True)
    return nn.TransformerEncoder(layer, 2, **options)


BLOCK = ["conv", "bias", "msa", "conv", "bias", "sum", "ln", "conv", "bias", "conv", "bias", "sum", "ln"]
TOKENS = torch.rand(2, 7, 6)
MASKS = {
    "none": {},
    "causal": {"mask": nn.Transformer.generate_square_subsequent_mask(7), "is_causal": True},
    "padding": {"src_key_padding_mask": torch.zeros(2, 7, dtype=torch.bool)},
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("masks", MASKS.values(), ids=MASKS)
def test_transformer_encoders(masks, training):
    model = network(lambda self, x: self.encoder(x, **masks), encoder=encoder()).train(training)
    assert kinds(from_module(model, TOKENS)) == ["input", *BLOCK, *BLOCK]


def test_a_transformer_encoder_with_a_padding_mask_from_its_input():
    def forward(self, ids):
        return self.head(self.encoder(self.table(ids), src_key_padding_mask=ids == 0))

    model = network(forward, table=nn.Embedding(11, 6), encoder=encoder(), head=nn.Linear(6, 5)).eval()
    graph = from_module(model, torch.tensor([[3, 1, 0], [5, 0, 0]]))
    assert kinds(graph) == ["input", "pos_enc", *BLOCK, *BLOCK, "conv", "bias"]


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (torch_geometric.nn.GCNConv(5, 7), ["a.lin.weight", "a.bias"]),
        (torch_geometric.nn.SAGEConv(5, 7), ["a.lin_l.bias", "a.lin_l.weight", "a.lin_r.weight"]),
        (torch_geometric.nn.GINConv(nn.Linear(5, 7)), ["a.nn.bias", "a.nn.weight"]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_graph_networks(layer, expected):
    edge_index = torch.tensor([[0, 1, 2, 2], [1, 2, 0, 1]])
    model = network(lambda self, x, edge_index: self.b(self.a(x, edge_index)), a=layer, b=nn.Linear(7, 2))
    graph = from_module(model, (torch.rand(3, 5), edge_index))
    assert sorted(name for name in {*graph.node_names, *graph.kept} if name.startswith("a.")) == sorted(expected)
    assert "a.lin.weight" not in graph.kept
