import itertools
import pickle

import pytest
import torch
from ghn_pyg.families.deepnets.graph import architecture_graph
from ghn_pyg.families.deepnets.sampling import sample
from ghn_pyg.families.deepnets.widths import WidthRule
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader
from torch_geometric.loader import DataLoader as GraphLoader

from ghn_pyg.families.deepnets.architecture import Architecture
from ghn_pyg.families.deepnets.dataset import DeepNets, MetaBatches, deal, effort, pack, sized_graph
from ghn_pyg.families.deepnets.genotype import DARTS
from ghn_pyg.families.deepnets.network import Network


def described(batch):
    """All that two meta-batches must share to be the same."""
    return (
        batch.step,
        [part.architecture for part in batch.parts],
        [part.node_shape.tolist() for part in batch.parts],
        [part.edge_index.tolist() for part in batch.parts],
        [int(part.distance.sum()) for part in batch.parts],
    )


def test_a_split_by_position():
    split = DeepNets("val", num_classes=7, image_size=16, width=8)
    graph = split[3]
    assert len(split) == 500
    assert graph.architecture.width == 8
    assert graph.architecture.key == sample("val", 3).key
    expected = architecture_graph(sample("val", 3), 7, 16, width=8)
    assert torch.equal(graph.node_shape, expected.node_shape)
    assert torch.equal(graph.edge_index, expected.edge_index)
    assert graph.param_names == expected.param_names


def test_the_architecture_builds_the_network_of_the_graph():
    graph = DeepNets("wide", num_classes=7, image_size=16, width=8)[2]
    assert graph.architecture.width == 32
    network = Network(graph.architecture, 7, 16)
    shapes = {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
    assert {spec.name: spec.shape for specs in graph.params for spec in specs} == {
        name: shape for name, shape in shapes.items() if name not in graph.kept
    }


def test_slices_lists_and_loaders():
    split = DeepNets("test", width=8)
    assert [graph.num_nodes for graph in split[5:8]] == [split[place].num_nodes for place in (5, 6, 7)]
    assert split[[11, 2]][1].architecture == split[2].architecture
    batch = next(iter(GraphLoader(split[:3], batch_size=3)))
    assert batch.architecture == [split[place].architecture for place in range(3)]
    assert batch.num_nodes == sum(split[place].num_nodes for place in range(3))


def test_positions_that_do_not_exist():
    for index in (500, -501):
        with pytest.raises(IndexError, match=f"split 'val' has positions 0 to 499 here, got {index}"):
            DeepNets("val")[index]
    with pytest.raises(IndexError, match="positions 0 to 2 here, got 3"):
        DeepNets("train")[5:8][3]
    with pytest.raises(ValueError, match="did you mean train"):
        DeepNets("trian")


def test_a_step_is_a_function_of_its_number():
    batches, again = MetaBatches(5, seed=3), MetaBatches(5, seed=3, first_step=2)
    assert described(batches.meta_batch(2)) == described(next(iter(again)))
    assert described(batches.meta_batch(2)) == described(batches.meta_batch(2))
    assert described(batches.meta_batch(2)) != described(batches.meta_batch(3))
    assert described(batches.meta_batch(2)) != described(MetaBatches(5, seed=4).meta_batch(2))


def test_literal_architectures():
    """The same on every machine and with every version: a change here breaks the resuming of runs."""
    drawn = MetaBatches(3, seed=11).architectures(1_000)
    assert [(one.cells, one.width, one.hidden, one.key.hex()[:8]) for one in drawn] == LITERAL


LITERAL = [(15, 32, 128, "8c0d9d6f"), (17, 32, 64, "de4a78dd"), (18, 32, 192, "c7d300bf")]


def test_steps_cover_the_split_in_order():
    batches = MetaBatches(4, seed=1)
    keys = [one.key for step in range(3) for one in batches.architectures(step)]
    assert keys == [sample("train", index, 1).key for index in range(12)]


def test_a_small_split_begins_again():
    batches = MetaBatches(7, split="wide")
    keys = [one.key for one in batches.architectures(14)]
    assert keys == [sample("wide", index % 100).key for index in range(98, 105)]


def test_ranks_share_a_step():
    joint = MetaBatches(7, seed=2).architectures(5)
    shares = [MetaBatches(7, seed=2, rank=rank, world_size=3).architectures(5) for rank in range(3)]
    assert sorted(one.key for share in shares for one in share) == sorted(one.key for one in joint)
    assert all(share for share in shares)


SECONDS = (
    0.85, 1.789, 1.178, 0.397, 0.847, 2.346, 0.846, 1.252,
    2.477, 0.697, 2.398, 0.327, 0.747, 1.201, 2.733, 0.412,
    0.193, 0.773, 0.163, 0.293, 1.056, 1.746, 0.409, 1.221,
    2.013, 0.59, 0.987, 0.443, 3.105, 1.602, 2.124, 0.598,
)  # fmt: skip
"""Training on 64 images by one core, of the architectures of four steps with seed 1."""


@pytest.mark.parametrize(("ranks", "most"), [(2, 1.05), (4, 1.2)])
def test_ranks_have_about_as_much_to_do(ranks, most):
    """If only their number counted, the busiest of two would have 1.4 times the mean, of four 1.8 times."""
    busiest = 0.0
    for step in range(4):
        seconds = SECONDS[8 * step : 8 * step + 8]
        hands = deal([effort(one) for one in MetaBatches(8, seed=1).architectures(step)], ranks)
        busiest += max(sum(seconds[position] for position in hand) for hand in hands)
    assert busiest * ranks / sum(SECONDS) < most


def test_layers_count_more_on_a_gpu_than_their_size():
    deep = Architecture(genotype=DARTS, cells=8, width=8)
    wide = Architecture(genotype=DARTS, cells=4, width=32)
    assert effort(deep) < effort(wide)
    assert effort(deep, device="cuda") > effort(wide, device="cuda")
    assert effort(wide, image_size=64) > 3 * effort(wide)


@given(st.lists(st.integers(1, 100), min_size=1, max_size=17), st.integers(1, 5))
def test_hands_differ_by_no_more_than_one_thing(efforts, hands):
    dealt = deal(efforts, hands)
    assert sorted(position for hand in dealt for position in hand) == list(range(len(efforts)))
    totals = [sum(efforts[position] for position in hand) for hand in dealt]
    assert max(totals) - min(totals) <= max(efforts)
    assert sum(bool(hand) for hand in dealt) == min(hands, len(efforts))


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes")
def test_workers_change_nothing(workers):
    batches = MetaBatches(2, seed=9, first_step=4, widths=WidthRule(widths=(8, 16), hidden=(32,)))
    loader = DataLoader(batches, batch_size=None, num_workers=workers, multiprocessing_context="fork")
    found = [described(batch) for batch in itertools.islice(loader, 5)]
    assert [one[0] for one in found] == [4, 5, 6, 7, 8]
    assert found == [described(batches.meta_batch(step)) for step in range(4, 9)]


def test_pickled_streams_go_on_alike():
    batches = MetaBatches(2, seed=9)
    again = pickle.loads(pickle.dumps(batches))  # noqa: S301
    assert described(again.meta_batch(1)) == described(batches.meta_batch(1))


def test_nothing_is_dropped():
    """However small the budget, every architecture of a step is there once."""
    batches = MetaBatches(6, seed=3, node_budget=150)
    batch = batches.meta_batch(0)
    assert len(batch.parts) > 1
    assert len(batch) == 6
    found = [one for part in batch.parts for one in part.architecture]
    assert sorted(one.key for one in found) == sorted(one.key for one in batches.architectures(0))
    for part in batch.parts:
        assert part.num_graphs == 1 or part.num_nodes <= 150


def test_the_images_and_classes_are_known():
    batch = MetaBatches(1, num_classes=7, image_size=16).meta_batch(0)
    assert (batch.num_classes, batch.image_size) == (7, 16)
    assert int(batch.parts[0].node_shape[-1, 0]) == 7


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": 0}, "size must be at least 1"),
        ({"size": 2, "rank": 0, "world_size": 3}, "size must be at least 3, one architecture for each process"),
        ({"rank": 3, "world_size": 3}, "rank expected a number below the world size 3, got 3"),
        ({"rank": -1, "world_size": 3}, "rank expected"),
        ({"first_step": -1}, "first_step must be at least 0"),
        ({"node_budget": 0}, "node_budget must be at least 1"),
        ({"split": "tset"}, "did you mean test"),
        ({"seed": -1}, "seed must not be negative"),
    ],
)
def test_wrong_arguments(wrong, message):
    with pytest.raises(ValueError, match=message):
        MetaBatches(**wrong)


def test_a_sized_graph_carries_its_architecture():
    architecture = sample("train", 3)
    assert sized_graph(architecture, 10, 32).architecture is architecture


@given(st.lists(st.integers(1, 30)), st.integers(1, 40))
def test_packs_hold_everything_once(sizes, budget):
    parts = pack(sizes, budget)
    assert sorted(position for part in parts for position in part) == list(range(len(sizes)))
    for part in parts:
        assert part == sorted(part)
        assert len(part) == 1 or sum(sizes[position] for position in part) <= budget
    # Any two parts would not fit together.
    for one, other in itertools.combinations(parts, 2):
        assert sum(sizes[position] for position in (*one, *other)) > budget
