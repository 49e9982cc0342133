import collections
import contextlib
import dataclasses
import sys
import typing
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from ghn_pyg import ArchData, from_module
from ghn_pyg.tracing.kept_reasons import Kept
from tests.golden import fingerprint, labelled
from tests.tracing.helpers import assert_unchanged, network, snapshot, weight

X = torch.rand(2, 5)
MAP = torch.rand(2, 3, 11, 13)


def small():
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(5, 7))  # fmt: skip


NAMES = ["input", "0.weight", "0.bias", "1.weight", "3:glob_avg", "5.weight", "5.bias"]


def test_every_field_of_the_graph():
    graph = from_module(small(), MAP)
    assert isinstance(graph, ArchData)
    assert graph.node_type.tolist() == [9, 4, 10, 11, 14, 4, 10]
    assert graph.edge_index.tolist() == [[0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 6]]
    assert graph.node_shape.tolist() == [
        [0, 0, 0, 0], [5, 3, 3, 3], [5, 1, 1, 1], [5, 1, 1, 1], [0, 0, 0, 0], [7, 5, 1, 1], [7, 1, 1, 1],
    ]  # fmt: skip
    assert graph.classifier.tolist() == [False] * 5 + [True] * 2
    assert graph.node_names == NAMES
    assert graph.param_names == [[], ["0.weight"], ["0.bias"], ["1.weight", "1.bias"], [], ["5.weight"], ["5.bias"]]
    assert graph.kept == {}
    assert graph.tied == {}
    assert graph.num_nodes == 7
    assert graph.distances()[0].tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert graph.distances()[:, 6].tolist() == [6, 5, 4, 3, 2, 1, 0]
    assert (graph.node_type.dtype, graph.edge_index.dtype, graph.classifier.dtype) == (
        torch.int64, torch.int64, torch.bool,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("declare", "size"),
    [
        (lambda net: None, (3, 224, 224)),
        (lambda net: setattr(net, "image_size", 37), (3, 37, 37)),
        (lambda net: setattr(net, "default_cfg", {"input_size": (2, 31, 41)}), (2, 31, 41)),
        (lambda net: setattr(net, "default_cfg", {"input_size": (2, 31, 41), "other": 3}), (2, 31, 41)),
        (lambda net: setattr(net, "image_size", (37, 41)), (3, 224, 224)),
    ],
)
def test_a_network_may_declare_the_size_of_its_input(declare, size):
    seen = []
    net = network(lambda self, x: (seen.append(tuple(x.shape)), self.a(x))[1], a=nn.LayerNorm(size[-1]))
    declare(net)
    from_module(net)
    assert seen[0] == (1, *size)


def test_cutoff():
    graph = from_module(small(), MAP, cutoff=2)
    assert graph.distances()[0].tolist() == [0, 1, 2, 0, 0, 0, 0]
    with pytest.raises(ValueError, match=r"cutoff must be .*between 1 and 32,?76"):
        from_module(small(), MAP, cutoff=0)


# --- networks of all kinds -------------------------------------------------------------------------------------------


PREPARED = {
    "train": lambda net: net.train(),
    "eval": lambda net: net.eval(),
    "meta": lambda net: net.to("meta"),
    "double": lambda net: net.double(),
    "bfloat16": lambda net: net.bfloat16(),
    "frozen": lambda net: net.requires_grad_(False),
    "channels last": lambda net: net.to(memory_format=torch.channels_last),
}


@pytest.mark.parametrize("prepare", PREPARED.values(), ids=PREPARED)
def test_any_mode_type_and_device(prepare):
    graph = from_module(prepare(small()), MAP)
    assert graph.node_names == NAMES
    assert graph.kept == {}
    assert all(value.device.type == "cpu" for _, value in graph if isinstance(value, torch.Tensor))


@contextlib.contextmanager
def default_type():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


CONTEXTS = {
    "inference_mode": torch.inference_mode,
    "enable_grad": torch.enable_grad,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "default device cpu": lambda: torch.device("cpu"),
    "default device meta": lambda: torch.device("meta"),
    "default type": default_type,
}


@pytest.mark.parametrize("context", CONTEXTS.values(), ids=CONTEXTS)
def test_in_any_context(context):
    model = small()
    with context():
        assert_same_graph(from_module(model, MAP), from_module(small(), MAP))
        made_inside = from_module(small())
    assert_same_graph(made_inside, from_module(model, MAP))


def assert_same_graph(graph, expected):
    assert graph.node_names == expected.node_names == NAMES
    for name in ("node_type", "edge_index", "node_shape", "classifier", "distance"):
        assert graph[name].dtype == expected[name].dtype
        assert graph[name].tolist() == expected[name].tolist()


def test_in_threads():
    """Threads trace one network, which has hooks and a state of its own, and others at the same time."""
    model = small()
    model[0].register_forward_hook(lambda module, args, output: setattr(module, "seen", output))
    before, limit = snapshot(model), sys.getrecursionlimit()
    with ThreadPoolExecutor(7) as pool:
        shared = list(pool.map(lambda _: from_module(model, MAP), range(11)))
        own = list(pool.map(lambda width: from_module(nn.Linear(5, width), X), range(1, 14)))
    for graph in shared:
        assert_same_graph(graph, from_module(small(), MAP))
    assert [graph.node_shape[1].tolist() for graph in own] == [[width, 5, 1, 1] for width in range(1, 14)]
    assert_unchanged(model, before)
    assert sys.getrecursionlimit() == limit


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.parametrize(
    ("wrap", "prefix"),
    [
        (nn.DataParallel, "module."),
        (torch.compile, "_orig_mod."),
        (lambda net: torch.compile(nn.DataParallel(net)), "_orig_mod.module."),
        (torch.optim.swa_utils.AveragedModel, "module."),
    ],
    ids=["DataParallel", "compile", "both", "AveragedModel"],
)
def test_wrappers(wrap, prefix):
    model = wrap(small())
    graph = from_module(model, MAP)
    assert graph.kept == {}
    predicted = [name for names in graph.param_names for name in names]
    assert sorted(predicted) == sorted(name for name, _ in model.named_parameters())
    assert predicted[0] == f"{prefix}0.weight"
    assert graph.node_names[4] == f"{prefix}3:glob_avg"


def test_a_network_that_compiles_itself_is_not_compiled():
    compiled = []

    def backend(graph, inputs):
        compiled.append(graph)
        return graph.forward

    model = small()
    model.compile(backend=backend)
    assert from_module(model, MAP).node_names == NAMES
    assert compiled == []


def test_compiled_parts():
    model = nn.Sequential(torch.compile(nn.Linear(5, 7)), nn.Linear(7, 2))
    assert from_module(model, X).node_names == ["input", "0._orig_mod.weight", "0._orig_mod.bias", "1.weight", "1.bias"]


def test_tied_weights():
    model = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 7))
    model[1].weight = model[0].weight
    graph = from_module(model, X)
    assert graph.param_names == [[], ["0.weight"], ["0.bias"], [], ["1.bias"], ["2.weight"], ["2.bias"]]
    assert graph.tied == {"1.weight": "0.weight"}
    assert graph.kept == {}


def test_auxiliary_heads_are_part_of_the_graph():
    def forward(self, x):
        x = self.a(x)
        return (self.b(x), self.c(x)) if self.training else self.b(x)

    model = network(forward, a=nn.Linear(5, 5), b=nn.Linear(5, 7), c=nn.Linear(5, 3)).eval()
    graph = from_module(model, X)
    assert sorted(graph.node_names) == ["a.bias", "a.weight", "b.bias", "b.weight", "c.bias", "c.weight", "input"]
    assert [graph.node_names[node] for node in graph.classifier.nonzero().flatten()] == ["b.weight", "b.bias"]
    assert graph.node_names[-1] == "b.bias"
    assert graph.kept == {}
    assert not model.training


def test_unused_parameters_are_kept_with_the_reason():
    model = network(lambda self, x: self.a(x), a=nn.Linear(5, 7), b=nn.Linear(5, 7), w=weight(3))
    assert from_module(model, X).kept == dict.fromkeys(("w", "b.weight", "b.bias"), "the forward pass does not use it")


def test_what_one_mode_uses_does_not_count_as_unused():
    """A graph is that of one trace: where both modes use parts of their own, the other one's are kept."""

    def forward(self, x):
        return self.b((self.train_only if self.training else self.eval_only)(self.a(x)))

    parts = {name: nn.Linear(5, 5, bias=False) for name in ("a", "b", "train_only", "eval_only", "neither")}
    graph = from_module(network(forward, **parts), X)
    assert graph.node_names == ["input", "a.weight", "train_only.weight", "b.weight"]
    assert graph.kept == {"eval_only.weight": Kept.UNREACHED, "neither.weight": Kept.UNUSED}


def test_the_mode_that_uses_more_is_taken():
    def forward(self, x):
        return self.a(x) if self.training else self.c(self.b(x))

    graph = from_module(network(forward, **{name: nn.Linear(5, 5, bias=False) for name in "abc"}), X)
    assert graph.node_names == ["input", "b.weight", "c.weight"]
    assert graph.kept == {"a.weight": Kept.UNREACHED}


def test_what_a_failing_training_pass_may_use_does_not_count_as_unused():
    def forward(self, x):
        return self.b(x[: int(x.argmax())]) if self.training else self.a(x)

    graph = from_module(network(forward, a=nn.Linear(5, 5), b=nn.Linear(5, 5)), X)
    assert graph.kept == dict.fromkeys(("b.weight", "b.bias"), Kept.UNREACHED)


def test_what_meets_only_parameters_does_not_count_as_unused():
    def forward(self, x):
        return self.a(x), (self.p * self.q).sum()

    net = network(forward, a=nn.Linear(5, 7), b=nn.Linear(5, 2, bias=False), p=weight(3), q=weight(3))
    reason = "it enters a computation of parameters alone, for which the vocabulary has no node type"
    assert from_module(net, X).kept == {"b.weight": Kept.UNUSED, "p": reason, "q": reason}


class Output(typing.NamedTuple):
    logits: torch.Tensor
    hidden: torch.Tensor


@dataclasses.dataclass(slots=True)
class SlotsOutput:
    logits: torch.Tensor
    hidden: torch.Tensor


class ModelOutput(collections.OrderedDict):
    def __init__(self, logits, hidden):
        super().__init__(logits=logits, hidden=hidden)


OUTPUTS = {
    "tensor": lambda main, side: main,
    "tuple": lambda main, side: (main, side),
    "dictionary": lambda main, side: {"out": main, "aux": side},
    "nested": lambda main, side: ({"out": [main]}, side),
    "with a number first": lambda main, side: (3, main, side),
    "named tuple": Output,
    "dataclass with slots": SlotsOutput,
    "a dictionary's subclass": ModelOutput,
}


@pytest.mark.parametrize("output", OUTPUTS.values(), ids=OUTPUTS)
def test_the_main_output_is_the_first_tensor(output):
    def forward(self, x):
        hidden = self.a(x)
        return output(self.b(hidden), hidden)

    graph = from_module(network(forward, a=nn.Linear(5, 5), b=nn.Linear(5, 7)), X)
    assert graph.node_names == ["input", "a.weight", "a.bias", "b.weight", "b.bias"]
    assert graph.classifier.tolist() == [False, False, False, True, True]


@pytest.mark.parametrize("change", [lambda x: x[:1], lambda x: x.repeat(3, 1, 2, 2), lambda x: x.double()])
def test_the_graph_depends_on_the_network_alone(change):
    model = small()
    assert fingerprint(*labelled(from_module(model, change(MAP)))) == fingerprint(*labelled(from_module(model, MAP)))


def test_real_activations_are_never_made():
    # A convolution whose output would have 10^14 elements.
    model = nn.Sequential(nn.Conv2d(3, 10_007, 1), nn.Conv2d(10_007, 7, 1))
    graph = from_module(model, torch.empty(1, 3, 1, 1).expand(1, 3, 100_003, 100_003))
    assert graph.num_nodes == 5


def test_five_thousand_layers():
    model = nn.Sequential(*(layer for _ in range(2500) for layer in (nn.Linear(5, 5, bias=False), nn.ReLU())))
    graph = from_module(model, X)
    assert graph.num_nodes == 2501
    assert graph.distances().max() == 50
