"""Forward passes that ask for values: all layers are reached, and the graph is the same each time."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

from ghn_pyg import TracingError, from_module
from ghn_pyg.tracing.kept_reasons import Kept
from tests.tracing.helpers import kinds, network, sources
from tests.tracing.rules.helpers import graph_of, linear

X = torch.rand(2, 5)


def layers(count):
    return nn.ModuleList(linear() for _ in range(count))


def confident(score):
    def forward(self, x):
        for stage, head in zip(self.stages, self.heads, strict=True):
            x = stage(x)
            if score(head(x)):
                break
        return head(x)

    return forward


SCORES = {
    "a tensor": lambda y: y.softmax(-1).max() > 0.9,
    "a number": lambda y: y.softmax(-1).max().item() > 0.9,
    "what is computed from it": lambda y: 1 - y.softmax(-1).max().item() < 0.1,
    "a float": lambda y: float(y.std()) < 0.1,
    "a truth value": lambda y: torch.allclose(y, y.round()),
}


@pytest.mark.parametrize("score", SCORES.values(), ids=SCORES)
def test_early_exits_are_not_taken(score):
    graph = graph_of(confident(score), X, stages=layers(5), heads=layers(5))
    assert graph.kept == {}


def test_conditions_of_which_some_must_hold_and_some_must_not():
    def forward(self, x):
        if x.sum() > 0:
            x = self.a(x)
        if x.sum() > 1:
            return self.c(x)
        return self.c(self.b(x))

    graph = graph_of(forward, X, a=linear(), b=linear(), c=linear())
    assert sources(graph)["c.weight"] == ["b.weight"]
    assert graph.kept == {}


def until(self, x):
    while True:
        x, before = self.a(x), x
        if (x - before).norm() < 1e-3:
            return self.b(x)


def at_most(self, x):
    for _ in range(50):
        x, before = self.a(x), x
        if (x - before).norm() < 1e-3:
            break
    return self.b(x)


def while_it_moves(self, x):
    step = x
    while step.norm() > 1e-3:
        step = self.a(x) - x
        x = x + step
    return self.b(x)


@pytest.mark.parametrize("forward", [until, at_most, while_it_moves])
def test_a_loop_that_waits_for_convergence_runs_twice_or_more(forward):
    graph = graph_of(forward, X, a=linear(), b=linear())
    assert graph.kept == {}
    assert 3 <= kinds(graph).count("conv") <= 4


DRAWS = {
    "random": lambda: random.random() < 0.5,
    "the other way round": lambda: random.random() > 0.5,
    "likely": lambda: random.uniform(0, 1) < 0.8,
    "numpy": lambda: np.random.rand() < 0.5,  # noqa: NPY002
    "bounds by name": lambda: torch.empty(1).uniform_(0.2, to=0.6) < 0.3,
    "randint by name": lambda: torch.randint(high=2, size=(1,)).item() == 0,
    "randint with bounds": lambda: torch.randint(3, 5, (1,)).item() == 3,
    "torch.rand": lambda: torch.rand(1).item() < 0.3,
    "uniform_": lambda: torch.empty(1).uniform_(0, 1) < 0.7,
    "bernoulli": lambda: torch.bernoulli(torch.tensor(0.6)).item() == 1,
    "bernoulli_": lambda: torch.zeros(1).bernoulli_(0.6).bool(),
    "randint": lambda: torch.randint(0, 2, (1,)).item() == 0,
}


@pytest.mark.parametrize("drops", DRAWS.values(), ids=DRAWS)
def test_layers_that_are_dropped_at_random_are_all_seen(drops):
    def forward(self, x):
        for layer in self.layers:
            if not drops():
                x = x + layer(x)
        return self.last(x)

    model = network(forward, layers=layers(7), last=linear(5, 2))
    names = set()
    for seed in range(3):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        graph = from_module(model, X)
        assert graph.kept == {}
        names.add(tuple(graph.node_names))
    assert len(names) == 1


def test_one_of_several_branches_may_be_drawn():
    graph = graph_of(lambda self, x: self.last(random.choice(self.layers)(x)), X, layers=layers(3), last=linear())
    assert len(graph.kept) == 2
    assert set(graph.kept.values()) == {Kept.UNREACHED}


def test_drawn_integers_and_permutations_have_values():
    def forward(self, x):
        start, order = torch.randint(0, 3, (1,)).item(), torch.randperm(2).tolist()
        return self.a(x[order, start : start + 3])

    assert graph_of(forward, X, a=linear(3, 2)).kept == {}


def test_a_graph_ends_where_values_are_read_after_the_last_parameter():
    def forward(self, x):
        scores = self.b(self.a(x))
        return [int(label) for label in scores.argmax(-1).tolist()]

    with pytest.warns(UserWarning, match="reads values of activations after its last parameter"):
        graph = graph_of(forward, X, a=linear(), b=nn.Linear(5, 3))
    assert graph.node_names == ["input", "a.weight", "b.weight", "b.bias"]
    assert graph.classifier.tolist() == [False, False, True, True]


def test_values_that_layers_depend_on_are_an_error():
    def forward(self, x):
        return self.b(self.a(x)[:, : int(x.argmax())])

    with pytest.raises(TracingError, match="depends on the values of tensors"):
        graph_of(forward, X, a=linear(), b=linear())


def test_the_value_of_a_parameter_is_known():
    graph = graph_of(lambda self, x: self.a(x * self.scale.item()), X, a=linear(), scale=nn.Parameter(torch.ones(1)))
    assert list(graph.kept) == ["scale"]


def test_traces_in_several_threads_restore_the_generators():
    def forward(self, x):
        return self.a(x) if random.random() < np.random.rand() else self.b(x)  # noqa: NPY002

    model = network(forward, a=linear(), b=linear())
    states = random.getstate(), np.random.get_state()[2], torch.get_rng_state()  # noqa: NPY002
    with ThreadPoolExecutor(4) as pool:
        names = {tuple(graph.node_names) for graph in pool.map(from_module, [model] * 8, [X] * 8)}
    assert len(names) == 1
    assert (random.getstate(), np.random.get_state()[2]) == states[:2]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[2])


def test_threads_that_draw_beside_a_trace_draw_no_number_twice():
    model = nn.Sequential(linear(), nn.Dropout(0.5), linear())
    expected, drawn, stop = from_module(model, X).node_names, [[], [], []], threading.Event()
    draws = (random.random, np.random.rand, lambda: float(torch.rand((), dtype=torch.float64)))

    def draw():
        while not stop.is_set():
            for numbers, number in zip(drawn, draws, strict=True):
                numbers.append(number())

    with ThreadPoolExecutor(3) as pool:
        pool.submit(draw)
        graphs = list(pool.map(from_module, [model] * 20, [X] * 20))
        stop.set()
    assert [graph.node_names for graph in graphs] == [expected] * 20
    assert all(len(set(numbers)) == len(numbers) > 20 for numbers in drawn)


class Drawing(nn.Module):
    """Draws from the generator of PyTorch in many ways, in each of which its layers depend on the result."""

    def __init__(self):
        super().__init__()
        self.a, self.b = linear(), linear()

    def forward(self, x):
        ones = torch.ones(3)
        for values in (
            torch.rand_like(ones), torch.randn(3), torch.multinomial(ones, 2), torch.poisson(ones), ones.normal_(),
            torch.normal(ones, 1.0), torch.empty(3).random_(), nn.functional.dropout(ones, 0.5), torch.randperm(3),
        ):  # fmt: skip
            x = self.a(x) if values.sum() > 100 else x
        return self.b(x)


@pytest.mark.parametrize("training", [True, False])
def test_what_pytorch_draws_in_a_trace_leaves_its_generator_as_it_is(training):
    state = torch.get_rng_state()
    assert len({tuple(from_module(Drawing().train(training), X).node_names) for _ in range(2)}) == 1
    torch.set_rng_state(state)
    model = Drawing()
    state = torch.get_rng_state()
    from_module(model, X)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_function_without_a_meta_kernel_draws_no_random_numbers():
    states = []

    def forward(self, x):
        hidden = self.a(x)
        states.append(torch.get_rng_state())
        spread = torch.histogram(hidden, 3)[0].sum()
        states.append(torch.get_rng_state())
        return self.b(hidden + spread)

    assert graph_of(forward, X, a=linear(), b=linear()).kept == {}
    assert len(states) == 2  # traced once
    assert torch.equal(*states)
