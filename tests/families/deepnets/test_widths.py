import collections
import dataclasses
import math

import pytest
from ghn_pyg.families.deepnets.layout import count_parameters
from ghn_pyg.families.deepnets.sampling import Numbers, sample
from ghn_pyg.families.deepnets.widths import CIFAR, IMAGENET, Bound, WidthRule, evaluation_width

from ghn_pyg.families.deepnets.architecture import Architecture
from ghn_pyg.families.deepnets.genotype import DARTS, Genotype

SMALL = Genotype((("conv_1x1", 0), ("skip_connect", 1)), (2,), (("max_pool_3x3", 0), ("skip_connect", 1)), (2,))
LARGE_KERNEL = Genotype((("conv_5x5", 0), ("skip_connect", 1)), (2,), (("max_pool_3x3", 0), ("skip_connect", 1)), (2,))
CONVOLUTIONS = Genotype((("conv_3x3", 0), ("conv_3x3", 1)), (2,), (("conv_3x3", 0), ("skip_connect", 1)), (2,))


def drawn(rule, architecture, count=400):
    return [rule.draw(architecture, Numbers(3, position)) for position in range(count)]


def test_published_choices():
    assert CIFAR.widths == (32, 48, 64, 80, 96, 112, 128)
    assert CIFAR.hidden == (64, 128, 192, 256, 320, 384, 448, 512)
    assert CIFAR.bounds == ((800_000, 12, 1), (400_000, 10, 2), (200_000, 8, 3))
    assert IMAGENET.bounds == ((2_000_000, 14, 1), (400_000, 10, 4), (200_000, 8, 5))
    assert (IMAGENET.widths, IMAGENET.hidden) == (CIFAR.widths, CIFAR.hidden)


@pytest.mark.parametrize(
    ("cells", "genotype", "changes", "cifar", "imagenet"),
    [
        (4, SMALL, {}, None, None),
        (8, SMALL, {}, None, None),
        (9, SMALL, {}, 3, 5),
        (10, SMALL, {}, 3, 5),
        (11, SMALL, {}, 2, 4),
        (12, SMALL, {}, 2, 4),
        (13, SMALL, {}, 1, 4),
        (15, SMALL, {}, 1, 1),
        (4, SMALL, {"global_average": False}, 1, 1),
        (4, LARGE_KERNEL, {}, 1, 1),
        (8, CONVOLUTIONS, {}, None, None),  # 158,762 parameters
        (4, CONVOLUTIONS, {"multiplier": 2}, 2, 4),  # 576,234
        (8, CONVOLUTIONS, {"multiplier": 2}, 1, 4),  # 1,090,538
        (10, DARTS, {}, 3, 5),  # 205,290
    ],
)
def test_how_many_widths(cells, genotype, changes, cifar, imagenet):
    architecture = Architecture(genotype=genotype, cells=cells, **changes)
    assert (CIFAR.choices(architecture), IMAGENET.choices(architecture)) == (cifar, imagenet)


def test_parameters_count_at_a_width_of_32():
    wide = Architecture(genotype=SMALL, cells=4, width=512)
    assert count_parameters(wide) > 800_000
    assert CIFAR.choices(wide) is None


def test_all_widths_are_drawn_alike():
    counts = collections.Counter(one.width for one in drawn(CIFAR, Architecture(genotype=SMALL, cells=4), 1400))
    assert sorted(counts) == list(CIFAR.widths)
    assert min(counts.values()) > 150  # 200 each expected, standard deviation 13


def test_few_widths_for_large_networks():
    assert {one.width for one in drawn(CIFAR, Architecture(genotype=SMALL, cells=10))} == {32, 48, 64}
    assert {one.width for one in drawn(CIFAR, Architecture(genotype=SMALL, cells=12))} == {32, 48}
    assert {one.width for one in drawn(CIFAR, Architecture(genotype=SMALL, cells=13))} == {32}


def test_head_sizes():
    small = drawn(CIFAR, Architecture(genotype=SMALL, cells=4, classifier_layers=2), 1000)
    assert {one.hidden for one in small if one.width <= 64} == set(CIFAR.hidden)
    assert {one.hidden for one in small if one.width > 64} == {64, 128, 192, 256}
    assert {one.hidden for one in drawn(CIFAR, Architecture(genotype=SMALL, cells=13))} == {64, 128, 192, 256}


def test_strides_of_small_stems():
    pooled = Architecture(genotype=SMALL, cells=4, stem_pool=True)
    assert {one.imagenet_stride for one in drawn(IMAGENET, pooled)} == {2, 4}
    assert {one.imagenet_stride for one in drawn(CIFAR, pooled)} == {4}
    for changes in ({"stem_pool": False}, {"stem_type": 1, "stem_pool": False}, {"cells": 9}):
        assert {one.imagenet_stride for one in drawn(IMAGENET, dataclasses.replace(pooled, **changes))} == {4}


def test_only_width_and_head_change():
    for index in range(20):
        before = sample("train", index)
        after = CIFAR.draw(before, Numbers(1, index))
        assert dataclasses.replace(after, width=before.width, hidden=before.hidden) == before
        assert CIFAR.draw(before, Numbers(1, index)) == after


def test_a_rule_of_its_own():
    rule = WidthRule(widths=(8, 16), hidden=(32,), bounds=(Bound(10, 5, 1),))
    assert {one.width for one in drawn(rule, Architecture(genotype=SMALL, cells=4))} == {8}
    unbounded = WidthRule(widths=(8, 16), hidden=(32,), bounds=())
    assert {one.width for one in drawn(unbounded, Architecture(genotype=SMALL, cells=20))} == {8, 16}


@pytest.mark.parametrize(
    "wrong",
    [{"widths": ()}, {"widths": (16, 8)}, {"widths": (0, 8)}, {"widths": (8.0, 16)}, {"hidden": (64, 64)},
     {"hidden": (True, 64)}],
    ids=str,
)  # fmt: skip
def test_wrong_rules(wrong):
    with pytest.raises(ValueError, match="expected ascending positive integers"):
        WidthRule(**wrong)


def test_widths_that_heads_do_not_divide():
    with pytest.raises(ValueError, match=r"widths expected multiples of 8, the heads of .*, got \(8, 12\)"):
        WidthRule(widths=(8, 12))


@pytest.mark.parametrize(
    "bound",
    [Bound(10, 5, 0), Bound("10", 5, 3), Bound(10, 5, 1.5), Bound(math.nan, 5, 3), Bound(10, True, 3), (10, 5, 3), 7],
)
def test_faulty_bounds(bound):
    with pytest.raises(ValueError, match="bounds expected three positive integers each, got "):
        WidthRule(bounds=(bound,))


def test_strides_are_a_flag():
    with pytest.raises(ValueError, match="strides expected true or false, got 'off'"):
        WidthRule(strides="off")


@pytest.mark.parametrize(
    ("split", "image_size", "width", "expected"),
    [("wide", 32, 32, 128), ("wide", 224, 32, 64), ("wide", 16, 8, 32), ("deep", 32, 32, 32), ("test", 224, 48, 48)],
)
def test_evaluation_width(split, image_size, width, expected):
    assert evaluation_width(split, image_size, width) == expected
