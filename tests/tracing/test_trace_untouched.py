"""A trace leaves the network, and everything else, as it was."""

import collections
import dataclasses
import gc
import random
import weakref

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ghn_pyg import TracingError, from_module
from tests.golden import labelled
from tests.tracing.helpers import assert_unchanged, network, snapshot

X = torch.rand(2, 5)
MAP = torch.rand(2, 3, 11, 13)


def small():
    return nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 7)
    )


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("net", "x"),
    [
        (small, MAP),
        (lambda: nn.Sequential(nn.Linear(5, 5), nn.BatchNorm1d(5, momentum=None), nn.Dropout()), X),
        (lambda: nn.Sequential(nn.InstanceNorm2d(3, affine=True, track_running_stats=True)), MAP),
        (lambda: nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(5, 7)), nn.Linear(7, 2)), X),
        (lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 7, 3))), MAP),
        (lambda: nn.LSTM(5, 7), X),
        (lambda: nn.Sequential(nn.Embedding(11, 5, max_norm=1e-3)), torch.tensor([[3, 1]])),
        (lambda: nn.Sequential(nn.EmbeddingBag(11, 5, max_norm=1e-3)), torch.tensor([[3, 1]])),
    ],
)
def test_layers_are_unchanged(net, x, training):
    model = net().train(training)
    before = snapshot(model)
    graph = from_module(model, x)
    assert_unchanged(model, before)
    again = from_module(model, x)
    assert labelled(again) == labelled(graph)
    assert_unchanged(model, before)


def test_gradients_and_hooks_are_unchanged():
    model = small()
    model(MAP).sum().backward()
    calls = []
    model.register_full_backward_hook(lambda *args: calls.append("backward"))
    model[0].weight.register_hook(lambda gradient: calls.append("gradient"))
    model[0].requires_grad_(False)
    model[1].eval()
    before = snapshot(model)
    from_module(model, MAP)
    assert_unchanged(model, before)
    assert calls == []


@dataclasses.dataclass
class Record:
    number: int = 0


CONTAINERS = {
    "list": (list, lambda store: store.append(3)),
    "dictionary": (dict, lambda store: store.update(number=3)),
    "set": (set, lambda store: store.add(3)),
    "nested list": (lambda: {"inner": [[]]}, lambda store: store["inner"][0].append(3)),
    "defaultdict": (lambda: collections.defaultdict(list), lambda store: store["list"].append(3)),
    "deque": (collections.deque, lambda store: store.append(3)),
    "object": (Record, lambda store: setattr(store, "number", 3)),
}


@pytest.mark.parametrize(("make", "write"), CONTAINERS.values(), ids=CONTAINERS)
def test_what_the_forward_pass_stores_is_discarded(make, write):
    def forward(self, x):
        write(self.store)
        return self.a(x)

    model = network(forward, a=nn.Linear(5, 7), store=make())
    before = snapshot(model)
    from_module(model, X)
    assert_unchanged(model, before)


ATTRIBUTES = {
    "a new attribute": lambda self, x: setattr(self, "seen", x),
    "a counter": lambda self, x: setattr(self, "count", self.count + 1),
    "of a layer": lambda self, x: setattr(self.a, "seen", x),
    "a new buffer": lambda self, x: self.register_buffer("seen", x),
    "a new layer": lambda self, x: self.add_module("seen", nn.Identity()),
    "a buffer is replaced": lambda self, x: setattr(self, "mean", self.mean * 0.9 + x.mean(0) * 0.1),
    "a buffer is removed": lambda self, x: delattr(self, "mean"),
    "a weight is replaced": lambda self, x: setattr(self.a, "weight", nn.Parameter(torch.zeros(7, 5))),
    "a mode": lambda self, x: self.a.train(not self.a.training),
    "a type": lambda self, x: self.double() and None,
    "a place": lambda self, x: self.to("cpu") and None,
    "needs no gradient": lambda self, x: self.a.requires_grad_(False) and None,
    "a gradient": lambda self, x: setattr(self.a.weight, "grad", torch.ones(7, 5)),
    "through __dict__": lambda self, x: self.__dict__.update(seen=3),
    "a hook": lambda self, x: self.a.register_forward_hook(lambda *args: None),
}  # fmt: skip


@pytest.mark.parametrize("write", ATTRIBUTES.values(), ids=ATTRIBUTES)
def test_attributes_that_the_forward_pass_sets_are_discarded(write):
    def forward(self, x):
        write(self, x)
        return self.a(x)

    model = network(forward, a=nn.Linear(5, 7), mean=torch.zeros(5), count=3)
    before = snapshot(model)
    from_module(model, X)
    assert_unchanged(model, before)


STORES = {
    "list": (list, lambda store, value: store.append(value)),
    "dictionary": (dict, lambda store, value: store.update({id(value): value})),
    "set": (set, lambda store, value: store.add(value)),
}


@pytest.mark.parametrize(("make", "put"), STORES.values(), ids=STORES)
def test_what_a_hook_collects_is_discarded(make, put):
    store = make()
    put(store, 3)
    before = store.copy()

    def hook(module, args, output):
        put(store, output)

    model = small()
    model[0].register_forward_hook(hook)
    model[1].register_forward_pre_hook(lambda module, args: put(store, args[0]))
    from_module(model, MAP)
    assert store == before
    model(MAP)
    assert len(store) > len(before)


WRITES = {
    "buffer.numpy()": lambda self, x: self.mean.numpy().fill(7),
    "buffer.add_": lambda self, x: self.mean.add_(1),
    "buffer +=": lambda self, x: self.mean.__iadd__(1),
    "buffer[0] =": lambda self, x: self.mean.__setitem__(0, 3),
    "buffer[1:] = activations": lambda self, x: self.mean.__setitem__(slice(1, 5), x[0, 1:]),
    "buffer[0].add_": lambda self, x: self.mean[0].add_(1),
    "buffer.view().mul_": lambda self, x: self.mean.view(5, 1)[0].mul_(3),
    "buffer.lerp_": lambda self, x: self.mean.lerp_(x.mean(0), 0.1),
    "buffer.copy_": lambda self, x: self.mean.copy_(x.mean(0)),
    "buffer.zero_": lambda self, x: self.mean.zero_(),
    "buffer.data.add_": lambda self, x: self.mean.data.add_(1),
    "buffer.data[0] =": lambda self, x: self.mean.data.__setitem__(0, 3),
    "buffer.data =": lambda self, x: setattr(self.mean, "data", torch.zeros(7)),
    "buffer.detach().add_": lambda self, x: self.mean.detach().add_(1),
    "buffer.detach()[0] =": lambda self, x: self.mean.detach().__setitem__(0, 3),
    "buffer.detach().view().mul_": lambda self, x: self.mean.detach().view(5, 1)[0].mul_(3),
    "buffer.unbind": lambda self, x: self.mean.unbind()[0].fill_(3),
    "buffer.split": lambda self, x: self.mean.split(2)[0].fill_(3),
    "buffer.index_add_": lambda self, x: self.mean.index_add_(0, torch.tensor([1]), x[0, :1]),
    "buffer.set_": pytest.param(
        lambda self, x: self.mean.set_(torch.zeros(5)), marks=pytest.mark.xfail(reason="no function mode sees set_")
    ),
    "buffer.scatter_": lambda self, x: self.mean.scatter_(0, torch.tensor([1]), 3.0),
    "out=buffer": lambda self, x: torch.add(self.mean, 1, out=self.mean),
    "foreach": lambda self, x: torch._foreach_lerp_([self.mean], [x[0]], 0.1),
    "weight.mul_": lambda self, x: self.a.weight.mul_(0.9),
    "weight.data.mul_": lambda self, x: self.a.weight.data.mul_(0.9),
    "weight.data = (max-norm)": lambda self, x: setattr(
        self.a.weight, "data", torch.renorm(self.a.weight.data, p=2, dim=0, maxnorm=1e-3)
    ),
    "weight.data.renorm_": lambda self, x: self.a.weight.data.renorm_(2, 0, 1e-3),
    "weight.data[0]": lambda self, x: self.a.weight.data[0].zero_(),
    "weight.data.T": lambda self, x: self.a.weight.data.T.mul_(2),
    "weight.data.view": lambda self, x: self.a.weight.data.view(-1).mul_(2),
    "weight.detach().mul_": lambda self, x: self.a.weight.detach().mul_(0.9),
    "weight.copy_": lambda self, x: self.a.weight.copy_(self.a.weight.clamp(0, 1)),
    "nn.init": lambda self, x: nn.init.normal_(self.a.weight),
    "all parameters": lambda self, x: [parameter.data.zero_() for parameter in self.parameters()],
    "load_state_dict": lambda self, x: self.load_state_dict({k: v * 0 for k, v in self.state_dict().items()}),
    "vector_to_parameters": lambda self, x: nn.utils.vector_to_parameters(torch.zeros(42), self.parameters()),
    "a tensor that is no buffer": lambda self, x: self.plain.add_(1),
    "a tensor in a list": lambda self, x: self.several[0].add_(1),
    "an array": lambda self, x: self.array.__iadd__(1),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_writing_in_place_changes_nothing(write):
    def forward(self, x):
        with torch.no_grad():
            write(self, x)
        return self.a(x)

    model = network(forward, a=nn.Linear(5, 7), mean=torch.ones(5), several=[torch.ones(5)], array=np.ones(5))
    model.__dict__["plain"] = torch.ones(5)
    before = snapshot(model)
    graph = from_module(model, X)
    assert_unchanged(model, before)
    if write is not WRITES["weight.data = (max-norm)"]:
        assert graph.node_names == ["input", "a.weight", "a.bias"]


DRAWS = {
    "torch": lambda: torch.rand(3),
    "in place": lambda: torch.empty(3).normal_(),
    "bernoulli": lambda: torch.bernoulli(torch.full((3,), 0.5)),
    "multinomial": lambda: torch.multinomial(torch.ones(7), 3),
    "randperm": lambda: torch.randperm(7),
    "dropout": lambda: F.dropout(torch.ones(7)),
    "seed": lambda: torch.manual_seed(3),
    "python": lambda: random.random(),
    "numpy": lambda: np.random.rand(),  # noqa: NPY002
}


def random_states():
    kind, words, position, *_ = np.random.get_state()  # noqa: NPY002
    return torch.get_rng_state().tolist(), random.getstate(), (kind, words.tolist(), position)


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_random_generators_are_restored(draw):
    def forward(self, x):
        draw()
        return self.a(F.dropout(x))

    model = network(forward, a=nn.Linear(5, 7))
    before = random_states()
    from_module(model, X)
    assert random_states() == before


def test_a_generator_of_the_network_is_not_advanced():
    generator = torch.Generator().manual_seed(3)
    before = generator.get_state()
    forward = lambda self, x: self.a(x + torch.rand(5, generator=self.generator))  # noqa: E731
    from_module(network(forward, a=nn.Linear(5, 7), generator=generator), X)
    assert torch.equal(generator.get_state(), before)


def test_nothing_refers_to_the_network_afterwards():
    model = small()
    graph = from_module(model, MAP)
    reference = weakref.ref(model[0].weight)
    del model
    assert reference() is None
    assert graph.num_nodes == 7


@pytest.mark.parametrize("enabled", [True, False])
def test_the_garbage_collector_is_as_before(enabled):
    seen = []
    try:
        (gc.enable if enabled else gc.disable)()
        from_module(network(lambda self, x: seen.append(gc.isenabled()) or self.a(x), a=nn.Linear(5, 7)), X)
        with pytest.raises(TracingError):
            from_module(network(lambda self, x: 1 / 0, a=nn.Linear(5, 7)), X)
        assert (seen, gc.isenabled()) == ([False], enabled)
    finally:
        gc.enable()
