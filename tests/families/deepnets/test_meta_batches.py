import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from ghn_pyg.families.deepnets import MetaBatches, WidthRule, sample
from ghn_pyg.families.deepnets.meta_batches import pack_to_budget


def described(batch):
    """Everything that equal meta-batches have in common."""
    return (
        batch.step,
        [part.architecture for part in batch.parts],
        [part.node_shape.tolist() for part in batch.parts],
        [part.edge_index.tolist() for part in batch.parts],
        [int(part.distance.sum()) for part in batch.parts],
    )


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


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes")
def test_workers_change_nothing(workers):
    batches = MetaBatches(2, seed=9, first_step=4, widths=WidthRule(widths=(8, 16), hidden=(32,)))
    loader = DataLoader(batches, batch_size=None, num_workers=workers, multiprocessing_context="fork")
    found = [described(batch) for batch in itertools.islice(loader, 5)]
    assert [one[0] for one in found] == [4, 5, 6, 7, 8]
    assert found == [described(batches.meta_batch(step)) for step in range(4, 9)]


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


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": 0}, "size must be at least 1"),
        ({"size": 2, "rank": 0, "world_size": 3}, "size must be at least 3, one architecture for each rank"),
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


@given(st.lists(st.integers(1, 30)), st.integers(1, 40))
def test_bins_hold_every_item_once(sizes, budget):
    bins = pack_to_budget(sizes, budget)
    assert sorted(index for indices in bins for index in indices) == list(range(len(sizes)))
    for indices in bins:
        assert indices == sorted(indices)
        assert len(indices) == 1 or sum(sizes[index] for index in indices) <= budget
    # No two bins fit into one.
    for one, other in itertools.combinations(bins, 2):
        assert sum(sizes[index] for index in (*one, *other)) > budget
