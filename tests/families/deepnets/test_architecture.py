import pickle

import pytest
from torch import nn

from ghn_pyg.families.deepnets import DARTS, VIT, Architecture, Genotype, Network
from ghn_pyg.utils.config import ConfigError

CONV = (("conv_3x3", 0), ("max_pool_3x3", 1))
ONE = Genotype(CONV, [2], CONV, [2])
MSA = Genotype((("msa", 0), ("none", 1)), [2], CONV, [2])
TWO = Genotype((*CONV, ("cse", 2), ("conv_1x1", 0)), [2, 3], (*CONV, ("cse", 2), ("conv_1x1", 0)), [2, 3])

PUBLISHED = {
    "norm": "bnorm", "ks": 5, "preproc": True, "glob_avg": False, "stem_pool": True, "C_mult": 2, "n_cells": 7,
    "fc_layers": 2, "C": 48, "fc_dim": 192, "stem_type": 0, "imagenet_stride": 2,
    "genotype": {"normal": [["conv_3x3", 0], ["max_pool_3x3", 1]], "normal_concat": [2],
                 "reduce": [["conv_3x3", 0], ["max_pool_3x3", 1]], "reduce_concat": [2]},
}  # fmt: skip


def make(genotype=TWO, cells=5, **fields):
    return Architecture(genotype=genotype, cells=cells, **fields)


def test_published_arguments():
    architecture = Architecture.from_args(PUBLISHED)
    assert architecture == make(
        ONE, 7, norm="bnorm", stem_kernel=5, stem_type=0, stem_pool=True, preprocess=True, global_average=False,
        multiplier=2, classifier_layers=2, width=48, hidden=192, imagenet_stride=2,
    )  # fmt: skip
    assert architecture.to_args() == PUBLISHED


def test_sizes_are_optional_and_other_entries_ignored():
    args = {name: value for name, value in PUBLISHED.items() if name not in ("C", "fc_dim", "imagenet_stride")}
    architecture = Architecture.from_args({**args, "num_nodes": 3, "num_params": {"cifar10": 5}})
    assert (architecture.width, architecture.hidden, architecture.imagenet_stride) == (32, 256, 4)


def test_missing_arguments():
    with pytest.raises(ConfigError, match="the arguments of an architecture lack genotype, ks, n_cells"):
        Architecture.from_args({name: PUBLISHED[name] for name in {*PUBLISHED} - {"ks", "n_cells", "genotype"}})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"genotype": "DARTS"}, "genotype expected a valid dictionary or instance of Genotype, got 'DARTS'"),
        ({"cells": 0}, "cells expected a value greater than or equal to 1, got 0"),
        ({"cells": 1001}, "cells expected a value less than or equal to 1000, got 1001"),
        ({"cells": 5.0}, "cells expected a valid integer, got 5.0"),
        ({"width": True}, "width expected a valid integer, got True"),
        ({"norm": "lnorm"}, "norm expected 'bnorm', got 'lnorm'"),
        ({"stem_kernel": 4}, "stem_kernel expected an odd size, got 4"),
        ({"stem_kernel": -1}, "stem_kernel expected a value greater than 0, got -1"),
        ({"stem_type": 2}, "stem_type expected 0 or 1, got 2"),
        ({"stem_pool": 1}, "stem_pool expected a valid boolean, got 1"),
        ({"hidden": 0}, "hidden expected a value greater than 0, got 0"),
        ({"imagenet_stride": 3}, "imagenet_stride expected 2 or 4, got 3"),
        ({"preprocess": False}, "preprocess expected True.* multiplier is 1 and up to 2 states"),
        ({"preprocess": False, "genotype": ONE, "multiplier": 2}, "multiplier is 2 and up to 1 states"),
    ],
)
def test_invalid_architectures(changes, message):
    with pytest.raises(ConfigError, match=message):
        make(**changes)


def test_architectures_can_be_hashed_pickled_and_written_as_yaml():
    architecture = make(DARTS)
    assert {architecture: 3}[make(DARTS)] == 3
    assert pickle.loads(pickle.dumps(architecture)) == architecture  # noqa: S301
    assert Architecture.from_dict(architecture.to_dict()) == architecture


def test_keys_are_the_same_on_every_machine():
    assert make(DARTS, 20).key.hex() == "ec46c16e4e92ba0fecee9d0faa00394a"
    assert make(VIT, 12, preprocess=False).key.hex() == "eaff14400ed6096975e33c28db707e7c"


@pytest.mark.parametrize("sizes", [{"width": 96}, {"hidden": 64}, {"imagenet_stride": 2}])
def test_sizes_do_not_change_the_key(sizes):
    assert make(**sizes).key == make().key


@pytest.mark.parametrize(
    "changes",
    [
        {"cells": 6}, {"norm": None}, {"stem_kernel": 5}, {"stem_type": 1}, {"stem_pool": True}, {"genotype": ONE},
        {"global_average": False}, {"multiplier": 2}, {"classifier_layers": 2}, {"genotype": DARTS},
        {"genotype": ONE, "preprocess": False},
        {"genotype": TWO.replace(normal_concat=(3,))},
        {"genotype": TWO.replace(reduce=(*CONV, ("cse", 2), ("conv_1x1", 1)))},
        {"genotype": TWO.replace(reduce=(*CONV, ("cse", 2), ("conv_3x3", 0)))},
    ],
)  # fmt: skip
def test_structure_changes_the_key(changes):
    assert make(**changes).key != make().key


def cell(branches, concat):
    return make(Genotype(branches, concat, CONV, [2])).key


@pytest.mark.parametrize(
    ("first", "second"),
    [
        # branches in reverse order
        (([("cse", 0), ("conv_1x1", 1)], [2]), ([("conv_1x1", 1), ("cse", 0)], [2])),
        # steps in reverse order
        (
            ([("cse", 0), ("conv_1x1", 1), ("conv_3x3", 1), ("conv_5x5", 0), ("msa", 2), ("msa", 3)], [3, 4]),
            ([("conv_5x5", 0), ("conv_3x3", 1), ("conv_1x1", 1), ("cse", 0), ("msa", 2), ("msa", 3)], [2, 4]),
        ),
        # an unused step
        (
            ([("cse", 0), ("conv_1x1", 1), ("conv_3x3", 1), ("conv_5x5", 0)], [3]),
            ([("conv_1x1", 0), ("conv_1x1", 1), ("conv_3x3", 1), ("conv_5x5", 0)], [3]),
        ),
        # a branch cut off by a 'none' before it
        (
            ([("none", 0), ("none", 1), ("conv_3x3", 2), ("conv_5x5", 0)], [3]),
            ([("none", 0), ("none", 1), ("cse", 1), ("none", 0), ("none", 1), ("conv_5x5", 0)], [4]),
        ),
    ],
)
def test_branches_without_effect_do_not_change_the_key(first, second):
    assert cell(*first) == cell(*second)


def test_stem_options_without_effect_do_not_change_the_key():
    assert make(MSA, stem_kernel=7, stem_type=1).key == make(MSA, stem_pool=True).key
    assert make(stem_type=1, stem_pool=True).key == make(stem_type=1).key


def test_norms_without_effect_do_not_change_the_key():
    """With attention and without preprocessing, norms come with convolutions alone, as such networks never stride."""
    cell = (("msa", 0), ("skip_connect", 1))
    normless = Genotype(cell, [2], cell, [2])
    assert make(normless, preprocess=False).key == make(normless, preprocess=False, norm=None).key
    assert not any(isinstance(module, nn.BatchNorm2d) for module in Network(make(normless, preprocess=False)).modules())
    for genotype, preprocess in ((normless, True), (MSA, False), (ONE, False)):
        assert make(genotype, preprocess=preprocess).key != make(genotype, preprocess=preprocess, norm=None).key
