import collections
import hashlib

import numpy as np
import pytest

from ghn_pyg.families.deepnets import (
    OPERATIONS,
    SPLIT_SIZES,
    Architecture,
    PortableRandom,
    architecture_graph,
    count_parameters,
    sample,
)
from ghn_pyg.families.deepnets.architecture_sampling import (
    SEARCH_SPACES,
    has_valid_operations,
    is_valid,
    propose,
    split_of,
)
from ghn_pyg.families.deepnets.network_plan import wire_cells

EACH = pytest.mark.parametrize("split", SPLIT_SIZES)
# cells, largest number of cells that is never deep, and from which on always, steps, steps of deep networks
TABLE = {
    "train": ((4, 18), 7, 10, (1, 4), (1, 2)),
    "deep": ((10, 36), 18, 18, (1, 4), (1, 2)),
    "dense": ((4, 18), 7, 10, (2, 10), (2, 6)),
    "search": ((6, 20), 10, 10, (1, 6), (1, 3)),
}
LARGEST = {"deep": 10**8, "dense": 10**8}
REDUCING = {"none", "max_pool_3x3", "avg_pool_3x3", "skip_connect"}


PROPOSED = {space: (PortableRandom(7), []) for space in SEARCH_SPACES.values()}


def proposals(split, count=300):
    """The first proposals with valid genotypes, before their split and size are checked."""
    random, proposed = PROPOSED[SEARCH_SPACES[split]]
    while len(proposed) < count:
        if (architecture := propose(SEARCH_SPACES[split], random)) is not None:
            proposed.append(architecture)
    return proposed[:count]


def rate(values):
    values = list(values)
    return sum(values) / len(values)


# --- a function of split, index and seed ----------------------------------------------------------------------------


def fingerprint(split, count=20):
    text = repr([sample(split, index).to_args() for index in range(count)])
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def test_architectures_are_the_same_on_every_machine():
    # String hashes differ between processes, so this would also show a dependence on them.
    assert {split: fingerprint(split) for split in SPLIT_SIZES} == FINGERPRINTS


def test_seeds_give_other_architectures():
    keys = {sample("val", index, seed).key for seed in (0, 1, 2**63) for index in range(20)}
    assert len(keys) == 60
    assert sample("val", 3, seed=np.int64(1)) == sample("val", np.int32(3), seed=1)


@EACH
def test_the_last_index(split):
    assert isinstance(sample(split, SPLIT_SIZES[split] - 1), Architecture)
    message = f"split '{split}' has indices 0 to {SPLIT_SIZES[split] - 1}, got {SPLIT_SIZES[split]}"
    with pytest.raises(IndexError, match=message):
        sample(split, SPLIT_SIZES[split])


@pytest.mark.parametrize(
    ("args", "error", "message"),
    [
        (("validation", 0), ValueError, "unknown split 'validation'; expected one of train, val, test"),
        (("trian", 0), ValueError, "unknown split 'trian'; did you mean train?"),
        (("val", -1), IndexError, "split 'val' has indices 0 to 499, got -1"),
        (("val", 0, -3), ValueError, "seed must not be negative, got -3"),
    ],
)
def test_invalid_arguments(args, error, message):
    with pytest.raises(error, match=message):
        sample(*args)


# --- splits ----------------------------------------------------------------------------------------------------------


def test_no_architecture_is_in_two_splits():
    keys = {split: {sample(split, index, seed).key for seed in (0, 1) for index in range(50)} for split in SPLIT_SIZES}
    assert len(set().union(*keys.values())) == sum(map(len, keys.values()))


def test_the_key_determines_the_split():
    shares = collections.Counter(split_of(architecture) for architecture in proposals("train", 3000))
    assert set(shares) == set(SPLIT_SIZES)
    assert 1550 < shares.pop("train") < 1850
    assert all(130 < count < 250 for count in shares.values())
    assert split_of(sample("dense", 3).replace(width=96, hidden=64)) == "dense"


# --- the rules -------------------------------------------------------------------------------------------------------


@EACH
def test_cells_and_steps(split):
    cells, never, always, steps, deep_steps = TABLE.get(split, TABLE["train"])
    architectures = proposals(split, 600)
    numbers = sorted({architecture.cells for architecture in architectures})
    assert (numbers[0], numbers[-1]) == cells
    few = [len(a.genotype.normal) // 2 for a in architectures if a.cells <= never]
    many = [len(a.genotype.normal) // 2 for a in architectures if a.cells > always]
    assert (min(few), max(few)) == steps
    assert (min(many), max(many)) == deep_steps
    assert all(len(a.genotype.normal) == len(a.genotype.reduce) for a in architectures)


def test_the_depth_threshold_is_sampled():
    architectures = proposals("train", 6000)
    shares = {cells: rate(len(a.genotype.normal) > 4 for a in architectures if a.cells == cells) for cells in (8, 10)}
    # Half of the networks that are not deep have more than 2 steps before some are rejected. Three quarters of those
    # with 8 cells are not deep, a quarter of those with 10.
    assert 0.25 < shares[8] < 0.375
    assert 0.07 < shares[10] < 0.125


@EACH
def test_branches(split):
    for architecture in proposals(split):
        genotype = architecture.genotype
        for branches in (genotype.normal, genotype.reduce):
            for first, second in zip(branches[::2], branches[1::2], strict=True):
                assert first[1] != second[1]
            names = [name for name, _ in branches]
            assert len(branches) > 2 or "none" not in names
            assert names.count("cse") <= 1
            assert names.count("conv_5x5") + names.count("conv_7x7") <= 1


def test_operations_and_inputs_are_uniform():
    genotypes = [a.genotype for a in proposals("train", 4000)]
    names = collections.Counter(name for g in genotypes if len(g.normal) > 2 for name, _ in g.normal)
    assert set(names) == set(OPERATIONS)
    others = [names[name] for name in OPERATIONS if name not in ("cse", "conv_5x5", "conv_7x7")]
    assert max(others) < 1.25 * min(others)
    inputs = collections.Counter(state for g in genotypes if len(g.normal) > 4 for _, state in g.normal[4:6])
    assert max(inputs.values()) < 1.2 * min(inputs.values())
    assert sorted(inputs) == [0, 1, 2, 3]


def test_half_of_the_reduction_cells_have_only_pools_and_skips():
    genotypes = [a.genotype for a in proposals("train", 2000) if len(a.genotype.reduce) > 4]
    assert 0.4 < rate({name for name, _ in genotype.reduce} <= REDUCING for genotype in genotypes) < 0.6


def test_concatenations():
    genotypes = [a.genotype for a in proposals("train", 3000)]
    assert all(genotype.normal_concat == genotype.reduce_concat for genotype in genotypes)
    assert all(genotype.normal_concat[-1] == len(genotype.normal) // 2 + 1 for genotype in genotypes)
    two = [genotype.normal_concat for genotype in genotypes if len(genotype.normal) == 4]
    # All steps in half of the cases, and in half of the others too.
    assert set(two) == {(3,), (2, 3)}
    assert 0.7 < rate(concat == (2, 3) for concat in two) < 0.8


@EACH
def test_preprocessing(split):
    architectures = proposals(split, 1000)
    assert all(a.preprocess for a in architectures if len(a.genotype.normal) > 2 or a.multiplier > 1)
    free = [a for a in architectures if len(a.genotype.normal) == 2 and a.multiplier == 1]
    if split == "dense":
        assert not free
        return
    without, with_attention = ([a.preprocess for a in free if a.attention == attention] for attention in (False, True))
    assert rate(without) == 1 if split != "search" else 0.65 < rate(without) < 0.95
    assert 0.03 < rate(with_attention) < 0.42


@EACH
def test_averages(split):
    never, always = TABLE.get(split, TABLE["train"])[1:3]
    architectures = proposals(split, 1000)
    assert all(a.global_average for a in architectures if a.attention or a.cells > always)
    assert 0.84 < rate(a.global_average for a in architectures if not a.attention and a.cells <= never) < 0.96


@EACH
def test_norms(split):
    architectures = proposals(split, 1500)
    if split in ("bnfree", "search"):
        assert {a.norm for a in architectures} == {None if split == "bnfree" else "bnorm"}
        return
    cells, branches = TABLE.get(split, TABLE["train"])[0][0] + 1, 12 if split == "dense" else 4
    small = [a for a in architectures if a.cells <= cells and len(a.genotype.normal) <= branches]
    assert all(a.norm == "bnorm" for a in architectures if a not in small)
    assert 0.3 < rate(a.norm is None for a in small) < 0.7


def test_stems_and_heads():
    architectures = proposals("train", 3000)
    for values in ([a.stem_kernel == 5 for a in architectures], [a.stem_kernel == 7 for a in architectures]):
        assert 0.3 < rate(values) < 0.37
    assert {a.stem_kernel for a in architectures} == {3, 5, 7}
    assert 0.45 < rate(a.multiplier == 2 for a in architectures) < 0.55
    assert 0.45 < rate(a.stem_type == 1 for a in architectures) < 0.55
    assert 0.45 < rate(a.stem_pool for a in architectures if a.stem_type == 0) < 0.55
    assert 0.45 < rate(a.classifier_layers == 2 for a in architectures) < 0.55
    assert not any(a.stem_pool for a in architectures if a.stem_type == 1)
    assert {(a.width, a.hidden, a.imagenet_stride) for a in architectures} == {(32, 256, 4)}


CONV, POOL, GATE = ("conv_3x3", 0), ("max_pool_3x3", 1), ("cse", 1)


@pytest.mark.parametrize(
    ("normal", "reduce", "expected"),
    [
        ([CONV, POOL], [POOL, POOL], True),
        ([("skip_connect", 0), POOL], [("none", 0), ("avg_pool_3x3", 1)], False),
        ([("msa", 0), POOL], [POOL, POOL], True),
        ([GATE, POOL], [POOL, POOL], False),
        ([GATE, ("msa", 0)], [POOL, POOL], False),
        ([GATE, POOL], [POOL, ("dil_conv_3x3", 0)], True),
        ([GATE, CONV], [GATE, POOL], True),
        ([GATE, CONV, GATE, POOL], [POOL, POOL], False),
        ([("conv_5x5", 0), ("conv_5x5", 1)], [POOL, POOL], False),
        ([CONV, POOL], [("conv_7x7", 0), ("conv_5x5", 1)], False),
        ([("conv_7x7", 0), POOL], [("conv_7x7", 0), POOL], True),
        ([("sep_conv_5x5", 0), ("dil_conv_5x5", 1), ("conv_5x5", 0), POOL], [POOL, POOL], True),
    ],
)
def test_valid_operations(normal, reduce, expected):
    assert has_valid_operations(normal, reduce) is expected


@EACH
def test_samples_are_connected_and_small_enough(split):
    for index in range(60):
        architecture = sample(split, index)
        assert is_valid(architecture, split)
        assert wire_cells(architecture, [architecture.cells - 1]) is not None
        for size in (32, 224):
            assert count_parameters(architecture, image_size=size) <= LARGEST.get(split, 10**7)


def test_sizes_of_graphs():
    # Published: 36 to 447 nodes, 192 on average, over 120 training architectures.
    nodes = [architecture_graph(sample("train", index)).num_nodes for index in range(400)]
    assert 175 < np.mean(nodes) < 205
    assert min(nodes) < 45
    assert 380 < max(nodes) < 700


FINGERPRINTS = {
    "train": "a32a6cd1", "val": "b0fd4e98", "test": "29113eed", "wide": "dfaef765", "deep": "486957a2",
    "dense": "01ca43b4", "bnfree": "91ad7e43", "search": "519829f6",
}  # fmt: skip
