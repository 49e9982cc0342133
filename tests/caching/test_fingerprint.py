"""What has the same fingerprint has the same graph: attempts to fool it."""

import collections
import copy
import enum
import functools
import os
import sys
import types

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from ghn_pyg import register_layer
from ghn_pyg.caching.fingerprint import fingerprint
from ghn_pyg.graphs import layers
from tests.caching.fingerprints import MAP, Config, Slotted, X, key, layer
from tests.graphs.tracing import network, weight


def small():
    return nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 7)
    )


class Color(enum.Enum):
    RED = 2
    BLUE = 3


Pair = collections.namedtuple("Pair", ["one", "other"])


def forward_named(name):
    """Networks of one class name whose forward passes differ."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(5, 5)

        if name == "relu":

            def forward(self, x):
                return self.a(x).relu()

        else:

            def forward(self, x):
                return self.a(self.a(x)).relu()

    return Net()


def closing_over(value):
    return network(lambda self, x: self.a(x) * value if value else self.a(x), a=nn.Linear(5, 7))


def tied(tie):
    net = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5))
    if tie == "weight":
        net[1].weight = net[0].weight
    elif tie == "module":
        net[1] = net[0]
    return net


def hooked(hook=None, register="register_forward_hook", **options):
    net = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 7))
    if hook is not None:
        getattr(net[0], register)(hook, **options)
    return net


def viewed(view):
    net = nn.Linear(5, 7)
    nn.init.ones_(net.weight)
    net.other = view(net.weight.data)
    return net


def patched(net):
    net.forward = types.MethodType(lambda self, x: F.linear(x, self.weight), net)
    return net


DIFFERENT = {
    "sizes": (lambda: nn.Linear(5, 7), lambda: nn.Linear(5, 11)),
    "stride": (lambda: nn.Conv2d(3, 5, 3), lambda: nn.Conv2d(3, 5, 3, stride=2)),
    "groups": (lambda: nn.Conv2d(1, 3, 3, groups=1), lambda: nn.ConvTranspose2d(3, 1, 3)),
    "activation": (lambda: nn.Sequential(nn.Linear(5, 7), nn.ReLU()),
                   lambda: nn.Sequential(nn.Linear(5, 7), nn.GELU())),
    "bias": (lambda: nn.Linear(5, 7), lambda: nn.Linear(5, 7, bias=False)),
    "type": (lambda: nn.Linear(5, 7), lambda: nn.Linear(5, 7, dtype=torch.float64)),
    "frozen": (lambda: nn.Linear(5, 7), lambda: nn.Linear(5, 7).requires_grad_(False)),
    "strides": (lambda: nn.Conv2d(3, 5, 3), lambda: nn.Conv2d(3, 5, 3).to(memory_format=torch.channels_last)),
    "names": (lambda: network(len, a=nn.Linear(5, 7)), lambda: network(len, b=nn.Linear(5, 7))),
    "order": (lambda: network(len, a=nn.Linear(5, 7), b=nn.ReLU()),
              lambda: network(len, b=nn.ReLU(), a=nn.Linear(5, 7))),
    "nesting": (lambda: nn.Sequential(nn.Sequential(nn.ReLU()), nn.ReLU()),
                lambda: nn.Sequential(nn.Sequential(nn.ReLU(), nn.ReLU()))),
    "forward of one name": (lambda: forward_named("relu"), lambda: forward_named("other")),
    "forward of an object": (lambda: nn.Linear(5, 7), lambda: patched(nn.Linear(5, 7))),
    "tied weights": (lambda: tied(None), lambda: tied("weight")),
    "shared module": (lambda: tied("weight"), lambda: tied("module")),
    "closure": (lambda: closing_over(2), lambda: closing_over(3)),
    "equal numbers": (lambda: closing_over(1), lambda: closing_over(True)),
    "equal numbers of one sign": (lambda: layer(scale=0.0), lambda: layer(scale=-0.0)),
    "number": (lambda: layer(scale=2), lambda: layer(scale=3)),
    "text": (lambda: layer(kind="same"), lambda: layer(kind="valid")),
    "text or bytes": (lambda: layer(kind="same"), lambda: layer(kind=b"same")),
    "text of two": (lambda: layer(kind=["a", "b"]), lambda: layer(kind=["ab"])),
    "list": (lambda: layer(depths=[2, 3]), lambda: layer(depths=[3, 2])),
    "list or tuple": (lambda: layer(depths=[2, 3]), lambda: layer(depths=(2, 3))),
    "shared lists": (lambda: layer(a=(one := [2]), b=one), lambda: layer(a=[2], b=[2])),
    "nested lists": (lambda: layer(depths=[[2], 3]), lambda: layer(depths=[[2, 3]])),
    "dictionary": (lambda: layer(options={"a": 2}), lambda: layer(options={"a": 3})),
    "set": (lambda: layer(kinds={2, 3}), lambda: layer(kinds={2, 5})),
    "object": (lambda: layer(config=Config(3)), lambda: layer(config=Config(5))),
    "object in an object": (lambda: layer(config=Config(3, Config(5))), lambda: layer(config=Config(3, Config(7)))),
    "slots": (lambda: layer(config=Slotted(3)), lambda: layer(config=Slotted(5))),
    "namespace": (lambda: layer(c=types.SimpleNamespace(a=3)), lambda: layer(c=types.SimpleNamespace(a=5))),
    "named tuple": (lambda: layer(pair=Pair(2, 3)), lambda: layer(pair=Pair(2, 5))),
    "default dictionary": (lambda: layer(d=collections.defaultdict(int)),
                           lambda: layer(d=collections.defaultdict(list))),
    "member": (lambda: layer(color=Color.RED), lambda: layer(color=Color.BLUE)),
    "class": (lambda: layer(made=nn.ReLU), lambda: layer(made=nn.GELU)),
    "function": (lambda: layer(act=F.relu), lambda: layer(act=F.gelu)),
    "compiled function": (lambda: layer(act=torch.relu), lambda: layer(act=torch.sigmoid)),
    "lambda": (lambda: layer(act=lambda x: x + 2), lambda: layer(act=lambda x: x + 3)),
    "default": (lambda: layer(act=lambda x, y=2: x), lambda: layer(act=lambda x, y=3: x)),
    "keyword default": (lambda: layer(act=lambda x, *, y=2: x), lambda: layer(act=lambda x, *, y=3: x)),
    "partial": (lambda: layer(act=functools.partial(F.elu, alpha=2)),
                lambda: layer(act=functools.partial(F.elu, alpha=3))),
    "method": (lambda: layer(act=Config(2).__eq__), lambda: layer(act=Config(3).__eq__)),
    "array": (lambda: layer(table=np.array([2, 3])), lambda: layer(table=np.array([2, 5]))),
    "type of an array": (lambda: layer(table=np.zeros(2, "int32")), lambda: layer(table=np.zeros(2, "float32"))),
    "tensor": (lambda: layer(table=torch.tensor([2, 3])), lambda: layer(table=torch.tensor([2, 5]))),
    "tensor of numbers": (lambda: layer(table=torch.tensor([2.0, 3.0])), lambda: layer(table=torch.tensor([2.0, 5.0]))),
    "one number": (lambda: layer(table=torch.tensor(2)), lambda: layer(table=torch.tensor(3))),
    "attribute of a parameter": (lambda: layer(), lambda: [n := layer(), setattr(n.weight, "mark", 3)][0]),
    "view": (lambda: viewed(torch.clone), lambda: viewed(lambda data: data)),
    "buffer": (lambda: network(len, a=torch.tensor([True, False])), lambda: network(len, a=torch.tensor([True, True]))),
    "real buffer": (lambda: network(len, a=torch.full((3, 5), 2.0)), lambda: network(len, a=torch.full((3, 5), 3.0))),
    "buffer or parameter": (lambda: network(len, a=torch.ones(3)), lambda: network(len, a=nn.Parameter(torch.ones(3)))),
    "missing buffer": (lambda: nn.BatchNorm1d(5), lambda: nn.BatchNorm1d(5, track_running_stats=False)),
    "list of modules": (lambda: layer(parts=[nn.ReLU()]), lambda: layer(parts=[nn.GELU()])),
    "mode of hidden modules": (lambda: layer(parts=[nn.ReLU()]), lambda: layer(parts=[nn.ReLU().eval()])),
    "hook": (hooked, lambda: hooked(lambda *_: None)),
    "hook's code": (lambda: hooked(lambda m, i, o: o + 2), lambda: hooked(lambda m, i, o: o + 3)),
    "hook's options": (lambda: hooked(lambda *_: None), lambda: hooked(lambda *_: None, with_kwargs=True)),
    "hook before": (lambda: hooked(lambda *_: None), lambda: hooked(lambda *_: None, "register_forward_pre_hook")),
    "number of hooks": (lambda: hooked(print), lambda: [n := hooked(print), n[0].register_forward_hook(print)][0]),
    "wrapped": (lambda: nn.Linear(5, 7), lambda: nn.DataParallel(nn.Linear(5, 7))),
}  # fmt: skip


@pytest.mark.parametrize("case", DIFFERENT)
def test_other_networks_have_other_fingerprints(case):
    one, other = DIFFERENT[case]
    assert key(one()) == key(one()), "the same network twice"
    assert key(other()) == key(other())
    assert key(one()) != key(other())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (X, torch.rand(3, 5)),
        (X, X.double()),
        (X, X.long()),
        (torch.tensor([2, 3]), torch.tensor([2, 5])),
        (torch.tensor([1, 1]), torch.tensor([True, True])),
        (torch.tensor([1, 0]), torch.tensor([1, 0], device="meta")),
        ((X,), (X, X)),
        ((X, 2), (X, 3)),
        ((X, None), (X, False)),
        ([X, [X]], [[X, X]]),
        ({"x": X}, {"y": X}),
        (X, {"x": X}),
    ],
)
def test_other_inputs_have_other_fingerprints(one, other):
    assert key(nn.Linear(5, 7), one) != key(nn.Linear(5, 7), other)


def test_values_of_real_inputs_do_not_count():
    assert key(nn.Linear(5, 7), X) == key(nn.Linear(5, 7), torch.zeros(2, 5))


def test_the_declared_input_counts():
    assert key(layer(image_size=31), None) != key(layer(image_size=37), None)


def test_cutoff():
    assert key(nn.Linear(5, 7), cutoff=3) != key(nn.Linear(5, 7), cutoff=5)


def trained():
    net = small()
    net(MAP).sum().backward()
    net[1].num_batches_tracked.zero_()
    for parameter in net.parameters():
        parameter.grad = None
    return net


@pytest.mark.parametrize(
    "change",
    [lambda net: net.eval(), lambda net: [net[1].eval(), net][1], lambda net: trained(), copy.deepcopy],
    ids=["mode", "mode of a part", "values", "copy"],
)
def test_what_a_trace_does_not_see_does_not_count(change):
    net = small()
    assert key(change(small()), MAP) == key(net, MAP)


def test_what_may_be_looked_at_is_told():
    net = small()
    unread = fingerprint(net, (MAP,), {}, 50).unread
    assert set(unread) == {id(net[1].running_mean), id(net[1].running_var)}


def test_lines_and_comments_do_not_count():
    sources = [
        "class Net(nn.Linear):\n    def forward(self, x):\n        return super().forward(x) + 2",
        "\n\nclass Net(nn.Linear):  # a\n\n    def forward(self, x):\n        return (super().forward(x)\n  + 2)",
        "class Net(nn.Linear):\n    def forward(self, x):\n        return super().forward(x) + 3",
    ]
    keys = []
    for source in sources:
        names = {"nn": nn, "__name__": "network"}
        exec(compile(source, "network.py", "exec"), names)  # noqa: S102
        keys.append(key(names["Net"](5, 7)))
    assert keys[0] == keys[1]
    assert keys[0] != keys[2]


# --- code ------------------------------------------------------------------------------------------------------------

SCALE = 2
helpers = types.ModuleType("tests_helpers_of_a_user")
helpers.inner = types.ModuleType("tests_helpers_of_a_user.inner")


def helper(x):
    return further(x)


def further(x):
    return x * SCALE


def other(x):
    return x + 3


class Uses(nn.Linear):
    step = 2

    def forward(self, x):
        return helpers.inner.function(helper(super().forward(x)))

    @property
    def twice(self):
        return 2 * self.step


helpers.inner.function = other
THIS = sys.modules[__name__]

PATCHES = {
    "function": (THIS, "helper", lambda x: x),
    "function of a function": (THIS, "further", lambda x: x),
    "constant of a function": (THIS, "SCALE", 3),
    "function of a module of a module": (helpers.inner, "function", lambda x: x),
    "module of a module": (helpers, "inner", types.SimpleNamespace(function=other)),
    "code": (further, "__code__", (lambda x: x * SCALE + 2).__code__),
    "defaults": (further, "__defaults__", (torch.ones(1),)),
    "method": (Uses, "forward", lambda self, x: x),
    "attribute of a class": (Uses, "step", 3),
    "property": (Uses, "twice", property(lambda self: 3)),
    "method of a base": (nn.Linear, "forward", lambda self, x: F.linear(x, self.weight)),
    "how modules are called": (nn.Module, "__call__", lambda self, *args: self.forward(*args)),
    "torch's function": (F, "linear", lambda *args: torch._C._nn.linear(*args)),
    "torch's tensors": (torch.Tensor, "__neg__", lambda self: self),
    "torch itself": (torch, "add", lambda one, other: one),
}


@pytest.mark.parametrize("case", PATCHES)
def test_patches_of_code_are_noticed(case, monkeypatch):
    owner, name, value = PATCHES[case]
    before = key(Uses(5, 7))
    net = Uses(5, 7)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, value)
        assert key(net) != before
    assert key(net) == before


def test_patches_of_an_installed_package_are_noticed(monkeypatch):
    def build():
        return torchvision.models.squeezenet1_1(num_classes=7)

    before = key(build(), None)
    for owner, name in [
        (torchvision.models.squeezenet.Fire, "forward"),
        (torchvision.models.squeezenet.SqueezeNet, "forward"),
        (torchvision.models.squeezenet, "_squeezenet"),
    ]:
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, lambda *args: args[-1] * SCALE)
            changed = key(build() if owner is not torchvision.models.squeezenet else NET, None)
            assert changed != before
            patch.setattr(THIS, "SCALE", 5)  # a patch is the user's code
            assert key(build() if owner is not torchvision.models.squeezenet else NET, None) not in (before, changed)
    assert key(build(), None) == before


NET = torchvision.models.squeezenet1_1(num_classes=7)


def test_functions_that_a_package_keeps_by_name_are_noticed(monkeypatch):
    module = sys.modules["torchvision.models.squeezenet"]
    monkeypatch.setattr(module, "CHOICES", {}, raising=False)
    before = key(NET, None)
    module.CHOICES["mine"] = other
    after = key(NET, None)
    assert after != before
    module.CHOICES["mine"] = lambda x: x
    assert key(NET, None) not in (before, after)
    module.CHOICES.clear()
    assert key(NET, None) == before


def test_versions_count(monkeypatch):
    before = key(nn.Linear(5, 7))
    for owner, name in [(torch, "__version__"), (sys, "version"), (sys.modules["ghn_pyg"], "__version__")]:
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, "0.0.1")
            assert key(nn.Linear(5, 7)) != before
    assert key(nn.Linear(5, 7)) == before


def test_rules_count(monkeypatch):
    from ghn_pyg.graphs.tracer import RULES

    before = key(nn.Linear(5, 7))
    monkeypatch.setitem(RULES, F.linear, lambda tracer, *args: args[0])
    changed = key(nn.Linear(5, 7))
    assert changed != before
    monkeypatch.setitem(RULES, F.linear, lambda tracer, *args: args[0] * SCALE)
    mine = key(nn.Linear(5, 7))
    monkeypatch.setattr(THIS, "SCALE", 5)
    assert len({before, changed, mine, key(nn.Linear(5, 7))}) == 4


def test_handlers_count_by_what_they_say(monkeypatch):
    class Norm(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = weight(5)

        def forward(self, x):
            return x * self.scale

    monkeypatch.setattr(layers, "HANDLERS", dict(layers.HANDLERS))
    net = Norm()
    keys = [key(net)]
    for kind in ("ln", "bn", "ln"):
        register_layer(Norm)(lambda layer, kind=kind: [(kind, [("scale", "gain")])])
        keys.append(key(net))
    assert len(set(keys)) == 3
    assert keys[1] == keys[3]
    register_layer(Norm)(lambda layer: [("ln", [("scale", "gain")])] if os.getenv("NEVER SET") is None else [])
    assert key(net) == keys[1]
    assert key(nn.Linear(5, 7)) == key(nn.Linear(5, 7))


@pytest.mark.parametrize(
    "context",
    [lambda: torch.device("meta"), lambda: torch.autocast("cpu", dtype=torch.bfloat16), torch.inference_mode],
    ids=["device", "autocast", "inference"],
)
def test_settings_count(context):
    net = nn.Linear(5, 7)
    with context():
        inside = key(net)
    assert inside != key(net)


def test_the_default_type_counts():
    net, before = nn.Linear(5, 7), torch.get_default_dtype()
    outside = key(net)
    torch.set_default_dtype(torch.float64)
    try:
        assert key(net) != outside
    finally:
        torch.set_default_dtype(before)


def test_global_hooks_count():
    outside = key(nn.Linear(5, 7))
    handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    try:
        assert key(nn.Linear(5, 7)) != outside
    finally:
        handle.remove()
    assert key(nn.Linear(5, 7)) == outside
