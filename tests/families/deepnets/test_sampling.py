import collections
import dataclasses
import hashlib

import numpy as np
import pytest
from ghn_pyg.families.deepnets.graph import architecture_graph
from ghn_pyg.families.deepnets.layout import count_parameters, wire
from ghn_pyg.families.deepnets.sampling import (
    PREDEFINED,
    SEARCH_SPACES,
    SPLIT_SIZES,
    Numbers,
    admitted,
    draw,
    sample,
    split_of,
)

from ghn_pyg.families.deepnets.architecture import Architecture
from ghn_pyg.families.deepnets.genotype import OPERATIONS, VIT, Genotype

COUNT = 300
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


def drawn(split, count=COUNT):
    """Admitted draws, before their split and their size are looked at."""
    numbers = Numbers(7)
    found = (draw(SEARCH_SPACES[split], numbers) for _ in range(3 * count))
    return [architecture for architecture in found if architecture is not None][:count]


def rate(found):
    found = list(found)
    return sum(found) / len(found)


def test_published_sizes():
    assert SPLIT_SIZES == {
        "train": 1_000_000, "val": 500, "test": 500, "wide": 100, "deep": 100, "dense": 100, "bnfree": 100,
        "search": 100_000,
    }  # fmt: skip
    assert list(SEARCH_SPACES) == list(SPLIT_SIZES)


# --- a function of split, index and seed ----------------------------------------------------------------------------


def fingerprint(split, count=20):
    text = repr([sample(split, index).to_args() for index in range(count)])
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def test_a_literal_architecture():
    genotype = Genotype(
        (("conv_7x1_1x7", 0), ("conv_3x3", 1)), [2], (("avg_pool_3x3", 1), ("avg_pool_3x3", 0)), [2]
    )  # fmt: skip
    assert sample("train", 0) == Architecture(genotype=genotype, cells=13, stem_type=1, multiplier=2)


def test_architectures_are_the_same_on_every_machine():
    # Hashes of strings differ from process to process, so this tells processes apart too.
    assert {split: fingerprint(split) for split in SPLIT_SIZES} == {
        "train": "a32a6cd1", "val": "b0fd4e98", "test": "29113eed", "wide": "dfaef765",
        "deep": "486957a2", "dense": "01ca43b4", "bnfree": "91ad7e43", "search": "519829f6",
    }  # fmt: skip


def test_order_and_other_random_numbers_do_not_matter():
    backward = [sample("val", index) for index in (5, 3)]
    np.random.default_rng().random()
    assert backward == [sample("val", index) for index in (3, 5)][::-1]


def test_seeds_give_other_architectures():
    keys = {sample("val", index, seed).key for seed in (0, 1, 2**63) for index in range(20)}
    assert len(keys) == 60
    assert sample("val", 3, seed=np.int64(1)) == sample("val", np.int32(3), seed=1)


@EACH
def test_the_last_position(split):
    assert isinstance(sample(split, SPLIT_SIZES[split] - 1), Architecture)
    message = f"split '{split}' has positions 0 to {SPLIT_SIZES[split] - 1}, got {SPLIT_SIZES[split]}"
    with pytest.raises(IndexError, match=message):
        sample(split, SPLIT_SIZES[split])


@pytest.mark.parametrize(
    ("args", "error", "message"),
    [
        (("validation", 0), ValueError, "unknown split 'validation'; expected one of train, val, test"),
        (("trian", 0), ValueError, "unknown split 'trian'; did you mean train?"),
        (("predefined", 0), ValueError, "the split 'predefined' is a fixed list, not a distribution; see PREDEFINED"),
        (("val", -1), IndexError, "split 'val' has positions 0 to 499, got -1"),
        (("val", 1.0), TypeError, "index expected an integer, got 1.0"),
        (("val", True), TypeError, "index expected an integer, got True"),
        (("val", 0, -3), ValueError, "seed must not be negative, got -3"),
        (("val", 0, "3"), TypeError, "seed expected an integer, got '3'"),
    ],
)
def test_places_that_do_not_exist(args, error, message):
    with pytest.raises(error, match=message):
        sample(*args)


# --- random numbers --------------------------------------------------------------------------------------------------


def test_the_stream_of_numbers_is_frozen():
    numbers = Numbers(3, 5, 7)
    assert [numbers.below(1000) for _ in range(5)] == [631, 151, 929, 762, 0]
    assert [numbers.below(1) for _ in range(100)] == [0] * 100


def test_numbers_are_even():
    numbers = Numbers(0)
    counts = collections.Counter(numbers.between((3, 9)) for _ in range(7000))
    assert sorted(counts) == [3, 4, 5, 6, 7, 8, 9]
    assert all(900 < count < 1100 for count in counts.values())
    assert 0.18 < rate(numbers.chance(0.2) for _ in range(5000)) < 0.22
    assert [numbers.chance(1.0) for _ in range(50)] == [True] * 50
    assert [numbers.chance(0.0) for _ in range(50)] == [False] * 50


# --- splits ----------------------------------------------------------------------------------------------------------


def test_no_architecture_is_in_two_splits():
    keys = {split: {sample(split, index, seed).key for seed in (0, 1) for index in range(50)} for split in SPLIT_SIZES}
    assert len(set().union(*keys.values())) == sum(map(len, keys.values()))


@EACH
def test_architectures_stand_in_their_split(split):
    assert {split_of(sample(split, index)) for index in range(50)} == {split}


def test_the_key_alone_decides_about_the_split():
    shares = collections.Counter(split_of(architecture) for architecture in drawn("train", 3000))
    assert set(shares) == set(SPLIT_SIZES)
    assert 1550 < shares.pop("train") < 1850
    assert all(130 < count < 250 for count in shares.values())
    architecture = sample("dense", 3)
    assert split_of(dataclasses.replace(architecture, width=96, hidden=64)) == "dense"


def test_evaluation_splits_hold_few_architectures_twice():
    keys = [sample("val", index).key for index in range(500)]
    assert len(set(keys)) >= 498


def test_the_predefined_architectures():
    assert list(PREDEFINED) == ["resnet50", "vit"]
    vit = PREDEFINED["vit"]
    assert (vit.genotype, vit.cells, vit.width, vit.preprocess) == (VIT, 12, 128, False)
    assert count_parameters(vit) == 1_210_634


# --- the rules -------------------------------------------------------------------------------------------------------


@EACH
def test_cells_and_steps(split):
    cells, never, always, steps, deep_steps = TABLE.get(split, TABLE["train"])
    found = drawn(split, 600)
    numbers = sorted({architecture.cells for architecture in found})
    assert (numbers[0], numbers[-1]) == cells
    few = [len(a.genotype.normal) // 2 for a in found if a.cells <= never]
    many = [len(a.genotype.normal) // 2 for a in found if a.cells > always]
    assert (min(few), max(few)) == steps
    assert (min(many), max(many)) == deep_steps
    assert all(len(a.genotype.normal) == len(a.genotype.reduce) for a in found)


def test_the_depth_threshold_is_drawn():
    found = drawn("train", 6000)
    shares = {cells: rate(len(a.genotype.normal) > 4 for a in found if a.cells == cells) for cells in (8, 10)}
    # Of networks that are not deep a half has more than 2 steps before some are rejected. Three quarters of those of 8
    # cells are not deep, a quarter of those of 10.
    assert 0.25 < shares[8] < 0.375
    assert 0.07 < shares[10] < 0.125


@EACH
def test_branches(split):
    for architecture in drawn(split):
        genotype = architecture.genotype
        for branches in (genotype.normal, genotype.reduce):
            for first, second in zip(branches[::2], branches[1::2], strict=True):
                assert first[1] != second[1]
            names = [name for name, _ in branches]
            assert len(branches) > 2 or "none" not in names
            assert names.count("cse") <= 1
            assert names.count("conv_5x5") + names.count("conv_7x7") <= 1


def test_every_operation_and_input_is_drawn_alike():
    found = [a.genotype for a in drawn("train", 4000)]
    names = collections.Counter(name for g in found if len(g.normal) > 2 for name, _ in g.normal)
    assert set(names) == set(OPERATIONS)
    others = [names[name] for name in OPERATIONS if name not in ("cse", "conv_5x5", "conv_7x7")]
    assert max(others) < 1.25 * min(others)
    inputs = collections.Counter(state for g in found if len(g.normal) > 4 for _, state in g.normal[4:6])
    assert max(inputs.values()) < 1.2 * min(inputs.values())
    assert sorted(inputs) == [0, 1, 2, 3]


def test_half_of_the_reduction_cells_have_pools_and_skips_alone():
    found = [a.genotype for a in drawn("train", 2000) if len(a.genotype.reduce) > 4]
    assert 0.4 < rate({name for name, _ in genotype.reduce} <= REDUCING for genotype in found) < 0.6


def test_concatenations():
    found = [a.genotype for a in drawn("train", 3000)]
    assert all(genotype.normal_concat == genotype.reduce_concat for genotype in found)
    assert all(genotype.normal_concat[-1] == len(genotype.normal) // 2 + 1 for genotype in found)
    two = [genotype.normal_concat for genotype in found if len(genotype.normal) == 4]
    # All steps in half of the cases, and in half of the others too.
    assert set(two) == {(3,), (2, 3)}
    assert 0.7 < rate(concat == (2, 3) for concat in two) < 0.8


@EACH
def test_preprocessing(split):
    found = drawn(split, 1000)
    assert all(a.preprocess for a in found if len(a.genotype.normal) > 2 or a.multiplier > 1)
    free = [a for a in found if len(a.genotype.normal) == 2 and a.multiplier == 1]
    if split == "dense":
        assert not free
        return
    without, with_attention = ([a.preprocess for a in free if a.attention == kind] for kind in (False, True))
    assert rate(without) == 1 if split != "search" else 0.65 < rate(without) < 0.95
    assert 0.03 < rate(with_attention) < 0.42


@EACH
def test_averages(split):
    never, always = TABLE.get(split, TABLE["train"])[1:3]
    found = drawn(split, 1000)
    assert all(a.global_average for a in found if a.attention or a.cells > always)
    assert 0.84 < rate(a.global_average for a in found if not a.attention and a.cells <= never) < 0.96


@EACH
def test_norms(split):
    found = drawn(split, 1500)
    if split in ("bnfree", "search"):
        assert {a.norm for a in found} == {None if split == "bnfree" else "bnorm"}
        return
    smallest = TABLE.get(split, TABLE["train"])[0][0]
    small = [a.cells <= smallest + 1 and len(a.genotype.normal) <= (12 if split == "dense" else 4) for a in found]
    assert all(a.norm == "bnorm" for a, is_small in zip(found, small, strict=True) if not is_small)
    assert 0.3 < rate(a.norm is None for a, is_small in zip(found, small, strict=True) if is_small) < 0.7


def test_stems_and_heads():
    found = drawn("train", 3000)
    for values in ([a.stem_kernel == 5 for a in found], [a.stem_kernel == 7 for a in found]):
        assert 0.3 < rate(values) < 0.37
    assert {a.stem_kernel for a in found} == {3, 5, 7}
    assert 0.45 < rate(a.multiplier == 2 for a in found) < 0.55
    assert 0.45 < rate(a.stem_type == 1 for a in found) < 0.55
    assert 0.45 < rate(a.stem_pool for a in found if a.stem_type == 0) < 0.55
    assert 0.45 < rate(a.classifier_layers == 2 for a in found) < 0.55
    assert not any(a.stem_pool for a in found if a.stem_type == 1)
    assert {(a.width, a.hidden, a.imagenet_stride) for a in found} == {(32, 256, 4)}


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
def test_operations_that_go_together(normal, reduce, expected):
    assert admitted(normal, reduce) is expected


@EACH
def test_sizes_and_ways_through(split):
    for index in range(60):
        architecture = sample(split, index)
        assert wire(architecture, [architecture.cells - 1]) is not None
        for size in (32, 224):
            assert count_parameters(architecture, image_size=size) <= LARGEST.get(split, 10**7)


def test_what_is_too_large_or_has_no_way_through_is_drawn_again():
    found, space = drawn("train", 2000), SEARCH_SPACES["train"]
    connected = [architecture for architecture in found if wire(architecture, [architecture.cells - 1]) is not None]
    assert len(connected) < len(found)
    assert any(count_parameters(a, image_size=224) > space.max_parameters for a in connected)


def test_sizes_of_graphs():
    # Published: 36 to 447 nodes, 192 on average, over 120 training architectures.
    nodes = [architecture_graph(sample("train", index)).num_nodes for index in range(400)]
    assert 175 < np.mean(nodes) < 205
    assert min(nodes) < 45
    assert 380 < max(nodes) < 700
