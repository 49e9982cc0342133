"""Constants keep their values wherever a network puts them, and checks of activations hold."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ghn_pyg import from_module
from tests.tracing.helpers import kinds, network, weight
from tests.tracing.rules.helpers import graph_of

X = torch.rand(2, 3, 5)
LAYERS = ["input", "a.weight", "a.bias", "b.weight", "b.bias"]

MASKS = {
    "a counter": lambda self, x: torch.arange(3, device=x.device) < 2,
    "ones": lambda self, x: torch.ones(3, device=x.device).cumsum(0) < 3,
    "moved": lambda self, x: torch.tensor([1, 1, 0]).to(x.device).bool(),
    "moved by name": lambda self, x: torch.tensor([1, 1, 0]).to(device="cuda", dtype=torch.bool),
    "moved to a number": lambda self, x: torch.tensor([True, True, False]).to(0),
    "moved with a method": lambda self, x: torch.tensor([True, True, False]).cuda().cpu(),
    "moved to activations": lambda self, x: torch.tensor([1, 1, 0]).to(x) > 0,
    "of the type of activations": lambda self, x: torch.tensor([1, 1, 0]).type_as(x) > 0,
    "expanded as activations": lambda self, x: (torch.arange(3)[:, None] < 2).expand_as(x)[0, :, 0],
    "like activations": lambda self, x: torch.ones_like(x[0, :, 0]).cumsum(0) < 3,
    "new": lambda self, x: x.new_ones(3).cumsum(0) < 3,
    "like a weight": lambda self, x: torch.full_like(self.a.weight[0, :3], 2.0).cumsum(0) < 5,
    "a buffer": lambda self, x: self.kept.to(x.device),
    "where the weights are": lambda self, x: self.kept.to(self.a.weight.device),
    "where the default device is": lambda self, x: torch.tensor([True, True, False]),
}


@pytest.mark.parametrize("default", ["cpu", "meta"])
@pytest.mark.parametrize("make", MASKS.values(), ids=MASKS)
def test_constants_keep_their_values(make, default):
    seen = []

    def forward(self, x):
        x = self.a(x)
        mask = make(self, x)
        seen.append(mask.tolist())
        assert mask.any()
        return self.b(x[:, mask].flatten(1))

    model = network(forward, a=nn.Linear(5, 5, bias=False), b=nn.Linear(10, 7), kept=torch.tensor([True, True, False]))
    with torch.device(default):
        graph = from_module(model, X)
    assert seen[0] == [True, True, False]
    assert graph.node_names == ["input", "a.weight", "b.weight", "b.bias"]


def test_everything_says_that_it_is_on_the_cpu():
    seen = []

    def forward(self, x):
        hidden = self.a(x)
        seen.extend(
            (str(value.device), value.is_cpu, value.is_cuda, value.is_meta, value.get_device())
            for value in (x, hidden, self.a.weight, self.kept, torch.zeros(3, device="cuda"))
        )
        return self.b(hidden)

    model = network(forward, a=nn.Linear(5, 5), b=nn.Linear(5, 7), kept=torch.ones(3)).to("meta")
    assert from_module(model, X).node_names == LAYERS
    assert set(seen) == {("cpu", True, False, False, -1)}


def test_what_is_asked_for_without_data_has_none():
    seen = []

    def forward(self, x):
        seen.append(torch.zeros(3, device="meta"))
        return self.a(x + seen[0].sum())

    graph_of(forward, X, a=nn.Linear(5, 5))
    assert seen[0].is_meta


CHECKS = {
    "isnan": lambda x: not torch.isnan(x).any(),
    "isinf": lambda x: not torch.isinf(x).any().item(),
    "isfinite": lambda x: torch.isfinite(x).all(),
    "a method": lambda x: x.isfinite().all().item(),
    "equal to itself": lambda x: (x == x).all(),
    "different from itself": lambda x: not (x != x).any(),
    "as torch asks": lambda x: torch._is_all_true(x > 0) and not torch._is_any_true(x < 0),
    "as its methods ask": lambda x: (x > 0)._is_all_true().item() and not (x < 0)._is_any_true().item(),
    "torch._assert_async": lambda x: torch._assert_async((x > 0).all()) is None,
    "a replacement": lambda x: torch.where(torch.isnan(x), torch.zeros_like(x), x).shape == x.shape,
    "a distribution": lambda x: torch.distributions.Normal(x, x.exp(), validate_args=True).batch_shape == x.shape,
    "probabilities": lambda x: torch.distributions.Categorical(logits=x, validate_args=True).event_shape == (),
}


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
def test_checks_of_activations_hold(check):
    def forward(self, x):
        x = self.a(x)
        assert check(x)
        return self.b(x)

    assert graph_of(forward, X, a=nn.Linear(5, 5), b=nn.Linear(5, 7)).node_names == LAYERS


def causal(self, ids, attention_mask=None):
    """The mask of a language model: causal, and without padding where there is any."""
    x = self.table(ids)
    length, device = x.shape[1], x.device
    steps = torch.arange(length, device=device)
    mask = torch.full((length, length), torch.finfo(x.dtype).min, dtype=x.dtype, device=device).triu(1)
    mask *= steps > steps.reshape(-1, 1)
    mask = mask[None, None].expand(x.shape[0], 1, -1, -1).clone()
    if attention_mask is not None and (attention_mask.to(device) == 0).any():
        padding = mask[..., :length] + attention_mask[:, None, None, :].to(device)
        mask = mask.masked_fill(padding == 0, torch.finfo(x.dtype).min)
    if mask.eq(0).all():
        raise ValueError("nothing is masked")
    q, k, v = self.qkv(x).chunk(3, -1)
    return self.head(F.scaled_dot_product_attention(q, k, v, mask[:, 0]))


@pytest.mark.parametrize("place", ["cpu", "meta"])
def test_a_language_model_with_masks(place):
    with torch.device(place):
        model = network(causal, table=nn.Embedding(11, 6), qkv=nn.Linear(6, 18), head=nn.Linear(6, 11, bias=False))
    graph = from_module(model, (torch.tensor([[3, 1, 4]]), torch.tensor([[1, 1, 0]])))
    assert kinds(graph) == ["input", "pos_enc", "conv", "bias", "msa", "conv"]
    assert graph.edge_index.tolist() == [[0, 1, 2, 3, 4], [1, 2, 3, 4, 5]]


JOINED = {
    "added": lambda x, mask: x + mask[..., None],
    "multiplied": lambda x, mask: x * mask[..., None].float(),
    "filled": lambda x, mask: x.masked_fill(mask[..., None] == 0, 0.0),
    "chosen": lambda x, mask: torch.where(mask[..., None] > 0, x, 0.0),
    "gathered": lambda x, mask: x.gather(1, mask[..., None].expand(-1, -1, 5)),
    "in a product": lambda x, mask: mask[..., None].mT.float().expand(-1, 3, -1) @ x,
    "attended": lambda x, mask: F.scaled_dot_product_attention(x, x, x, mask[:, None].bool()),
}


@pytest.mark.parametrize("join", JOINED.values(), ids=JOINED)
def test_masks_that_the_user_passes_join_nothing(join):
    def forward(self, x, mask):
        return self.b(join(self.a(x), mask))

    graph = graph_of(forward, (X, torch.ones(2, 3).long()), a=nn.Linear(5, 5), b=nn.Linear(5, 7))
    assert [kind for kind in kinds(graph) if kind != "msa"] == ["input", "conv", "bias", "conv", "bias"]
    assert graph.edge_index[0].tolist() == list(range(graph.num_nodes - 1))


def test_numbers_that_the_user_passes_are_the_input_of_a_layer():
    def forward(self, x, numbers):
        return self.c(torch.cat([self.a(x), numbers.float() @ self.w], 1))

    graph = graph_of(
        forward,
        (torch.rand(1, 5), torch.tensor([[3, 1]])),
        a=nn.Linear(5, 3, bias=False),
        w=weight(2, 7),
        c=nn.Linear(10, 11),
    )
    assert kinds(graph) == ["input", "conv", "conv", "concat", "conv", "bias"]
    assert graph.edge_index.tolist() == [[0, 0, 1, 2, 3, 4], [1, 2, 3, 3, 4, 5]]
