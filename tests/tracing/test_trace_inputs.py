"""What a trace takes as input, and what it says when something is wrong."""

import collections
import typing

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ghn_pyg import TracingError, from_module
from tests.tracing.helpers import assert_unchanged, kinds, network, snapshot, sources

X = torch.rand(2, 5)
MAP = torch.rand(2, 3, 11, 13)


def small():
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 7))


class Pair(typing.NamedTuple):
    first: torch.Tensor
    second: torch.Tensor


INPUTS = {
    "a tensor": (lambda self, x: self.a(x), X),
    "a tuple": (lambda self, x: self.a(x), (X,)),
    "keywords": (lambda self, *, x: self.a(x), {"x": X}),
    "a mapping": (lambda self, *, x: self.a(x), collections.UserDict(x=X)),
    "several": (lambda self, x, y: self.a(x + y), (X, X)),
    "with a number": (lambda self, x, factor: self.a(x * factor), (X, 3)),
    "with nothing": (lambda self, x, mask: self.a(x), (X, None)),
    "nested": (lambda self, parts: self.a(parts[0] + parts[1]["y"]), ([X, {"y": X}],)),
    "a dictionary as argument": (lambda self, parts: self.a(parts["x"]), ({"x": X},)),
    "a named tuple": (lambda self, pair: self.a(pair.first + pair.second), (Pair(X, X),)),
    "without data": (lambda self, x: self.a(x), X.to("meta")),
    "that requires a gradient": (lambda self, x: self.a(x), X.clone().requires_grad_()),
    "of another type": (lambda self, x: self.a(x.float()), X.double()),
    "numbers": (lambda self, x: self.a(x.float()), torch.tensor([[3, 1, 4, 1, 5]])),
}


@pytest.mark.parametrize(("forward", "inputs"), INPUTS.values(), ids=INPUTS)
def test_inputs(forward, inputs):
    graph = from_module(network(forward, a=nn.Linear(5, 7)), inputs)
    assert graph.node_names == ["input", "a.weight", "a.bias"]


def test_inputs_are_not_changed():
    x = X.clone()
    from_module(network(lambda self, x: self.a(x.mul_(0).add_(3)), a=nn.Linear(5, 7)), x)
    assert torch.equal(x, X)
    assert vars(x) == {}


@pytest.mark.parametrize(
    "write",
    [
        lambda ids: ids.add_(1),
        lambda ids: ids.__setitem__((0, 0), 5),
        lambda ids: ids.view(-1)[1].zero_(),
        lambda ids: ids.detach().mul_(0),
        lambda ids: torch.add(ids, 1, out=ids),
        lambda ids: ids.masked_fill_(ids == 3, 0),
    ],
)
def test_ids_are_not_changed(write):
    ids = torch.tensor([[3, 1, 4]])
    from_module(network(lambda self, ids: (write(ids), self.a(ids))[1], a=nn.Embedding(11, 5)), ids)
    assert ids.tolist() == [[3, 1, 4]]
    assert vars(ids) == {}


def test_token_ids():
    def forward(self, ids, attention_mask=None):
        return self.head(self.norm(self.words(ids) + self.places(torch.arange(ids.size(1)))))

    net = network(
        forward, words=nn.Embedding(11, 5), places=nn.Embedding(7, 5), norm=nn.LayerNorm(5), head=nn.Linear(5, 11)
    )
    graph = from_module(net, {"ids": torch.tensor([[3, 1, 4]]), "attention_mask": torch.ones(1, 3)})
    assert kinds(graph) == ["input", "pos_enc", "pos_enc", "sum", "ln", "conv", "bias"]
    assert sources(graph)["places.weight"] == []
    assert sources(graph)["words.weight"] == ["input"]


# What networks with masks ask of them: whether anything is masked at all.
MASKS = {
    "all": lambda mask: bool(mask.all()),
    "any": lambda mask: bool((mask == 0).any()),
    "contains": lambda mask: 0 in mask,
    "sum": lambda mask: int(mask.sum()) == mask.numel(),
    "converted": lambda mask: bool(mask.to(torch.bool)[:, None, :].all()),
    "inverted": lambda mask: not bool((1 - mask).eq(1).any()),
    "joined": lambda mask: bool(torch.cat([mask, torch.ones_like(mask)], 1).all()),
}


@pytest.mark.parametrize("ask", MASKS.values(), ids=MASKS)
def test_masks_that_the_user_passes_have_values(ask):
    def forward(self, x, mask):
        return self.a(x) if ask(mask) else self.a(x * mask[..., None])

    graph = from_module(network(forward, a=nn.Linear(5, 7)), (torch.rand(2, 3, 5), torch.ones(2, 3, dtype=torch.long)))
    assert graph.node_names == ["input", "a.weight", "a.bias"]


def test_masks_on_the_device_of_the_activations_have_values():
    def forward(self, x, mask):
        hidden = self.a(x)
        mask = mask.to(device=hidden.device, dtype=torch.bool)
        causal = torch.ones(3, 3, device=hidden.device).tril() > torch.arange(3, device=x.device)
        return hidden if mask.all() and causal.any() else None

    graph = from_module(network(forward, a=nn.Linear(5, 7)), (torch.rand(2, 3, 5), torch.ones(2, 3).long()))
    assert graph.node_names == ["input", "a.weight", "a.bias"]


def test_a_boolean_mask_that_does_not_depend_on_the_input():
    def forward(self, x):
        kept = torch.zeros(2, 3, dtype=torch.bool)
        kept[:, 1:] = True
        return self.b(self.a(x)[kept].view(2, 14))

    graph = from_module(network(forward, a=nn.Linear(5, 7), b=nn.Linear(14, 2)), torch.rand(2, 3, 5))
    assert graph.node_names == ["input", "a.weight", "a.bias", "b.weight", "b.bias"]


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (None, "expected a torch.nn.Module, got NoneType None"),
        ("resnet18", "expected a torch.nn.Module, got str 'resnet18'"),
        (nn.Linear, r"expected a torch.nn.Module, got type .*Linear'>; call it to build the network"),
        (small, "got function .*; call it to build the network"),
        (small().state_dict(), "expected a torch.nn.Module, got OrderedDict"),
    ],
)
def test_what_is_not_a_module(model, message):
    with pytest.raises(TypeError, match=message):
        from_module(model)


def test_no_parameters():
    with pytest.raises(ValueError, match="Sequential has no parameters, so there is nothing to predict"):
        from_module(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3, affine=False)))


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature:UserWarning")
def test_lazy_parameters():
    net = nn.Sequential(nn.Conv2d(3, 5, 1), nn.LazyConv2d(7, 1))
    message = r"parameters \['1.weight', '1.bias'\] are not initialised yet; run the network once"
    with pytest.raises(ValueError, match=message):
        from_module(net, MAP)
    assert net[1].weight.__class__ is nn.UninitializedParameter
    net(MAP)
    assert from_module(net, MAP).num_nodes == 5


@pytest.mark.parametrize("inputs", [3, (), [], {}, np.zeros((2, 5)), (2, 5), "x", {"x": [3]}])
def test_inputs_without_a_tensor(inputs):
    with pytest.raises(TypeError, match="example_inputs expected a tensor, a tuple of arguments or a dictionary"):
        from_module(nn.Linear(5, 7), inputs)


class Broken(nn.Module):
    def __init__(self, error):
        super().__init__()
        self.layer = nn.Linear(5, 5)
        self.error = error

    def forward(self, x):
        raise self.error


def test_a_failing_forward_pass_names_the_module():
    net = nn.Sequential(nn.Linear(5, 5), nn.Sequential(nn.ReLU(), Broken(KeyError("lost"))))
    message = r"the forward pass of Sequential failed in '1.1' on input of shape \(2, 5\): KeyError: 'lost'"
    with pytest.raises(TracingError, match=message) as caught:
        from_module(net, X)
    assert isinstance(caught.value.__cause__, KeyError)


@pytest.mark.parametrize(("error", "raised"), [(ValueError, TracingError), (KeyboardInterrupt, KeyboardInterrupt)])
def test_a_failing_forward_pass_changes_nothing(error, raised):
    net = nn.Sequential(nn.BatchNorm1d(5), Broken(error("lost"))).train()
    before, state = snapshot(net), torch.get_rng_state()
    with pytest.raises(raised):
        from_module(net, X)
    assert_unchanged(net, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled()
    assert torch.rand(3).sum().item() > 0


def test_the_module_that_failed_is_named_after_another_error_was_caught():
    def forward(self, x):
        try:
            x = self.first(x)
        except ValueError:
            x = self.second(x)
        return self.third(x)

    broken = Broken(ValueError("lost"))
    graph = from_module(
        network(lambda self, x: F.max_pool1d(forward(self, x), 2), first=broken, second=nn.Linear(5, 5),
                third=nn.Linear(5, 6)), X
    )  # fmt: skip
    assert graph.node_names[-1] == "max_pool"
    with pytest.raises(TracingError, match="failed in 'third' on"):
        from_module(network(forward, first=broken, second=nn.Linear(5, 5), third=Broken(KeyError("lost"))), X)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (torch.rand(2, 4, 11, 13), r"in '0' on input of shape \(2, 4, 11, 13\): .* expected 3 input channels, got 4"),
        (torch.rand(2, 3, 2, 13), "in '0' .*too small"),
        (torch.rand(3), r"in '0' on input of shape \(3,\)"),
        ((MAP, MAP), "takes 2 positional arguments but 3 were given"),
        ({"x": MAP}, "unexpected keyword argument 'x'"),
    ],
)
def test_a_wrong_input(inputs, message):
    with pytest.raises(TracingError, match=f"(?s){message}.*pass inputs that it accepts, from_module"):
        from_module(small(), inputs)


@pytest.mark.parametrize("message", ["no metadata", "MetaFormer expects a square image"])
def test_an_error_of_the_network_itself_is_not_taken_for_a_missing_value(message):
    with pytest.raises(TracingError, match="pass inputs that it accepts, from_module"):
        from_module(nn.Sequential(Broken(ValueError(message))), X)
