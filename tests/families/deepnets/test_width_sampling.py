import collections

import pytest

from ghn_pyg.families.deepnets import (
    CIFAR,
    DARTS,
    IMAGENET,
    Architecture,
    Bound,
    Genotype,
    PortableRandom,
    WidthRule,
    evaluation_width,
    sample,
)
from ghn_pyg.utils.config import Config, ConfigError

SMALL = Genotype((("conv_1x1", 0), ("skip_connect", 1)), (2,), (("max_pool_3x3", 0), ("skip_connect", 1)), (2,))
LARGE_KERNEL = Genotype((("conv_5x5", 0), ("skip_connect", 1)), (2,), (("max_pool_3x3", 0), ("skip_connect", 1)), (2,))
CONVOLUTIONS = Genotype((("conv_3x3", 0), ("conv_3x3", 1)), (2,), (("conv_3x3", 0), ("skip_connect", 1)), (2,))


def sampled(rule, architecture, count=400):
    return [rule.sample(architecture, PortableRandom(3, index)) for index in range(count)]


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


def test_widths_are_uniform():
    counts = collections.Counter(one.width for one in sampled(CIFAR, Architecture(genotype=SMALL, cells=4), 1400))
    assert sorted(counts) == list(CIFAR.widths)
    assert min(counts.values()) > 150  # 200 each expected, standard deviation 13


def test_head_sizes():
    small = sampled(CIFAR, Architecture(genotype=SMALL, cells=4, classifier_layers=2), 1000)
    assert {one.hidden for one in small if one.width <= 64} == set(CIFAR.hidden)
    assert {one.hidden for one in small if one.width > 64} == {64, 128, 192, 256}
    assert {one.hidden for one in sampled(CIFAR, Architecture(genotype=SMALL, cells=13))} == {64, 128, 192, 256}


def test_strides_of_small_stems():
    pooled = Architecture(genotype=SMALL, cells=4, stem_pool=True)
    assert {one.imagenet_stride for one in sampled(IMAGENET, pooled)} == {2, 4}
    assert {one.imagenet_stride for one in sampled(CIFAR, pooled)} == {4}
    for changes in ({"stem_pool": False}, {"stem_type": 1, "stem_pool": False}, {"cells": 9}):
        assert {one.imagenet_stride for one in sampled(IMAGENET, pooled.replace(**changes))} == {4}


def test_only_width_and_head_change():
    for index in range(20):
        before = sample("train", index)
        after = CIFAR.sample(before, PortableRandom(1, index))
        assert after.replace(width=before.width, hidden=before.hidden) == before
        assert CIFAR.sample(before, PortableRandom(1, index)) == after


def test_custom_rules():
    rule = WidthRule(widths=(8, 16), hidden=(32,), bounds=(Bound(10, 5, 1),))
    assert {one.width for one in sampled(rule, Architecture(genotype=SMALL, cells=4))} == {8}
    unbounded = WidthRule(widths=(8, 16), hidden=(32,), bounds=())
    assert {one.width for one in sampled(unbounded, Architecture(genotype=SMALL, cells=20))} == {8, 16}


class Run(Config):
    widths: WidthRule


def test_rules_in_yaml():
    rule = WidthRule.from_dict({"widths": [8, 16], "bounds": [[11, 13, 1]]})
    assert rule == WidthRule(widths=(8, 16), bounds=(Bound(11, 13, 1),))
    assert WidthRule.from_dict(rule.to_dict()) == rule
    assert rule.to_dict()["bounds"] == [[11, 13, 1]]
    assert Run(widths="cifar").widths == CIFAR
    assert Run(widths="imagenet").widths == Run(widths=IMAGENET).widths == IMAGENET
    assert Run(widths={"widths": [8, 16], "bounds": [[11, 13, 1]]}).widths == rule
    with pytest.raises(ConfigError, match=r"Run\.widths: unknown rule 'imagnet'; did you mean imagenet"):
        Run(widths="imagnet")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"widths": ()}, "widths expected at least one"),
        ({"widths": (16, 8)}, "widths expected at least one and ascending integers"),
        ({"widths": (0, 8)}, "widths.0 expected a value greater than 0, got 0"),
        ({"widths": (8.0, 16)}, "widths.0 expected a valid integer"),
        ({"widths": (8, 12)}, "widths.1 expected a multiple of 8, got 12"),
        ({"hidden": (64, 64)}, "hidden expected at least one and ascending integers"),
        ({"bounds": [(10, 5, 0)]}, "bounds.0.2 expected a value greater than 0, got 0"),
        ({"bounds": [("10", 5, 3)]}, "bounds.0.0 expected a valid integer"),
        ({"bounds": [(10, True, 3)]}, "bounds.0.1 expected a valid integer"),
        ({"bounds": [(10, 5)]}, "bounds.0.2 is missing"),
        ({"bounds": [7]}, "bounds.0 expected a tuple, list"),
        ({"strides": "off"}, "strides expected a valid boolean, got 'off'"),
    ],
)
def test_invalid_rules(fields, message):
    with pytest.raises(ConfigError, match=message):
        WidthRule(**fields)


@pytest.mark.parametrize(
    ("split", "image_size", "width", "expected"),
    [("wide", 32, 32, 128), ("wide", 224, 32, 64), ("wide", 16, 8, 32), ("deep", 32, 32, 32), ("test", 224, 48, 48)],
)
def test_evaluation_width(split, image_size, width, expected):
    assert evaluation_width(split, image_size, width) == expected
