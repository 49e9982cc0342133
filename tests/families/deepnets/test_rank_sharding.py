import pytest
from hypothesis import given
from hypothesis import strategies as st

from ghn_pyg.families.deepnets import DARTS, Architecture, MetaBatches
from ghn_pyg.families.deepnets.rank_sharding import shard_by_cost, training_cost

SECONDS = (
    0.85, 1.789, 1.178, 0.397, 0.847, 2.346, 0.846, 1.252,
    2.477, 0.697, 2.398, 0.327, 0.747, 1.201, 2.733, 0.412,
    0.193, 0.773, 0.163, 0.293, 1.056, 1.746, 0.409, 1.221,
    2.013, 0.59, 0.987, 0.443, 3.105, 1.602, 2.124, 0.598,
)  # fmt: skip
"""Training times of the architectures of four steps with seed 1, for 64 images on one core."""


@pytest.mark.parametrize(("ranks", "most"), [(2, 1.05), (4, 1.2)])
def test_ranks_have_similar_training_times(ranks, most):
    """By their number alone, the busiest of two ranks would have 1.4 times the mean, of four 1.8 times."""
    busiest = 0.0
    for step in range(4):
        seconds = SECONDS[8 * step : 8 * step + 8]
        shards = shard_by_cost([training_cost(one) for one in MetaBatches(8, seed=1).architectures(step)], ranks)
        busiest += max(sum(seconds[index] for index in shard) for shard in shards)
    assert busiest * ranks / sum(SECONDS) < most


def test_the_number_of_layers_matters_more_on_a_gpu():
    deep = Architecture(genotype=DARTS, cells=8, width=8)
    wide = Architecture(genotype=DARTS, cells=4, width=32)
    assert training_cost(deep) < training_cost(wide)
    assert training_cost(deep, device="cuda") > training_cost(wide, device="cuda")
    assert training_cost(wide, image_size=64) > 3 * training_cost(wide)


@given(st.lists(st.integers(1, 100), min_size=1, max_size=17), st.integers(1, 5))
def test_shards_differ_by_at_most_one_item(costs, count):
    shards = shard_by_cost(costs, count)
    assert sorted(index for shard in shards for index in shard) == list(range(len(costs)))
    totals = [sum(costs[index] for index in shard) for shard in shards]
    assert max(totals) - min(totals) <= max(costs)
    assert sum(map(bool, shards)) == min(count, len(costs))
