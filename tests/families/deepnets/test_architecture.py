import dataclasses
import pickle

import pytest
from ghn_pyg.families.deepnets.parts import BatchNorm2d

from ghn_pyg.families.deepnets.architecture import Architecture
from ghn_pyg.families.deepnets.genotype import DARTS, VIT, Genotype
from ghn_pyg.families.deepnets.network import Network

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


def test_sizes_may_be_missing_and_other_entries_are_not_looked_at():
    args = {name: value for name, value in PUBLISHED.items() if name not in ("C", "fc_dim", "imagenet_stride")}
    architecture = Architecture.from_args({**args, "num_nodes": 3, "num_params": {"cifar10": 5}})
    assert (architecture.width, architecture.hidden, architecture.imagenet_stride) == (32, 256, 4)


def test_arguments_that_are_none():
    with pytest.raises(TypeError, match="an architecture's arguments are a dictionary, got 3"):
        Architecture.from_args(3)
    with pytest.raises(ValueError, match="the architecture's arguments lack ks, n_cells, genotype"):
        Architecture.from_args({name: PUBLISHED[name] for name in {*PUBLISHED} - {"ks", "n_cells", "genotype"}})


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"genotype": "DARTS"}, TypeError, "genotype expected a Genotype, got 'DARTS'"),
        ({"cells": 0}, ValueError, "cells expected 1 to 1000, got 0"),
        ({"cells": 1001}, ValueError, "cells expected 1 to 1000, got 1001"),
        ({"cells": 5.0}, TypeError, "cells expected an integer, got 5.0"),
        ({"width": True}, TypeError, "width expected an integer, got True"),
        ({"norm": "lnorm"}, ValueError, "norm expected 'bnorm' or None, got 'lnorm'"),
        ({"stem_kernel": 4}, ValueError, "stem_kernel expected an odd size, got 4"),
        ({"stem_kernel": -1}, ValueError, "stem_kernel expected an odd size, got -1"),
        ({"stem_type": 2}, ValueError, "stem_type expected 0 or 1, got 2"),
        ({"stem_pool": 1}, TypeError, "stem_pool expected True or False, got 1"),
        ({"preprocess": None}, TypeError, "preprocess expected True or False, got None"),
        ({"global_average": "yes"}, TypeError, "global_average expected True or False, got 'yes'"),
        ({"multiplier": 0}, ValueError, "multiplier expected a positive number, got 0"),
        ({"width": -8}, ValueError, "width expected a positive number, got -8"),
        ({"hidden": 0}, ValueError, "hidden expected a positive number, got 0"),
        ({"classifier_layers": 3}, ValueError, "classifier_layers expected 1 or 2, got 3"),
        ({"imagenet_stride": 3}, ValueError, "imagenet_stride expected 2 or 4, got 3"),
        ({"preprocess": False}, ValueError, "multiplier is 1 and up to 2 states are concatenated; set preprocess=True"),
        ({"preprocess": False, "genotype": ONE, "multiplier": 2}, ValueError, "multiplier is 2 and up to 1 states"),
    ],
)
def test_what_is_no_architecture(changes, error, message):
    with pytest.raises(error, match=message):
        make(**changes)


def test_attention():
    assert make(MSA).attention
    assert make(VIT, preprocess=False).attention
    assert not make(DARTS).attention


def test_architectures_can_be_keys_and_travel():
    architecture = make(DARTS)
    assert {architecture: 3}[make(DARTS)] == 3
    assert pickle.loads(pickle.dumps(architecture)) == architecture  # noqa: S301
    with pytest.raises(dataclasses.FrozenInstanceError):
        architecture.cells = 3


# --- keys ------------------------------------------------------------------------------------------------------------


def test_keys_are_the_same_on_every_machine():
    assert make(DARTS, 20).key.hex() == "ec46c16e4e92ba0fecee9d0faa00394a"
    assert make(VIT, 12, preprocess=False).key.hex() == "eaff14400ed6096975e33c28db707e7c"


@pytest.mark.parametrize("sizes", [{"width": 96}, {"hidden": 64}, {"imagenet_stride": 2}])
def test_sizes_do_not_count(sizes):
    assert make(**sizes).key == make().key


@pytest.mark.parametrize(
    "changes",
    [
        {"cells": 6}, {"norm": None}, {"stem_kernel": 5}, {"stem_type": 1}, {"stem_pool": True}, {"genotype": ONE},
        {"global_average": False}, {"multiplier": 2}, {"classifier_layers": 2}, {"genotype": DARTS},
        {"genotype": ONE, "preprocess": False},
        {"genotype": dataclasses.replace(TWO, normal_concat=(3,))},
        {"genotype": dataclasses.replace(TWO, reduce=(*CONV, ("cse", 2), ("conv_1x1", 1)))},
        {"genotype": dataclasses.replace(TWO, reduce=(*CONV, ("cse", 2), ("conv_3x3", 0)))},
    ],
)  # fmt: skip
def test_structure_counts(changes):
    assert make(**changes).key != make().key


def cell(branches, concat):
    return make(Genotype(branches, concat, CONV, [2])).key


@pytest.mark.parametrize(
    ("first", "second"),
    [
        # branches the other way round
        (([("cse", 0), ("conv_1x1", 1)], [2]), ([("conv_1x1", 1), ("cse", 0)], [2])),
        # steps the other way round
        (
            ([("cse", 0), ("conv_1x1", 1), ("conv_3x3", 1), ("conv_5x5", 0), ("msa", 2), ("msa", 3)], [3, 4]),
            ([("conv_5x5", 0), ("conv_3x3", 1), ("conv_1x1", 1), ("cse", 0), ("msa", 2), ("msa", 3)], [2, 4]),
        ),
        # a step that nothing uses
        (
            ([("cse", 0), ("conv_1x1", 1), ("conv_3x3", 1), ("conv_5x5", 0)], [3]),
            ([("conv_1x1", 0), ("conv_1x1", 1), ("conv_3x3", 1), ("conv_5x5", 0)], [3]),
        ),
        # a branch that a 'none' before it cuts off
        (
            ([("none", 0), ("none", 1), ("conv_3x3", 2), ("conv_5x5", 0)], [3]),
            ([("none", 0), ("none", 1), ("cse", 1), ("none", 0), ("none", 1), ("conv_5x5", 0)], [4]),
        ),
    ],
)
def test_what_has_no_effect_does_not_count(first, second):
    assert cell(*first) == cell(*second)


def test_absent_parts_of_a_concatenation_count():
    branches = [("none", 0), ("none", 1), ("cse", 1), ("conv_5x5", 0)]
    assert cell(branches, [2, 3]) != cell(branches, [3])


def test_the_stem_of_networks_with_attention_is_one_and_the_same():
    assert make(MSA, stem_kernel=7, stem_type=1).key == make(MSA, stem_pool=True).key
    assert make(stem_type=1, stem_pool=True).key == make(stem_type=1).key


def test_norms_that_are_nowhere_do_not_count():
    """With attention and without preprocessing, norms come with convolutions alone, as such networks never stride."""
    cell = (("msa", 0), ("skip_connect", 1))
    normless = Genotype(cell, [2], cell, [2])
    assert make(normless, preprocess=False).key == make(normless, preprocess=False, norm=None).key
    assert not any(isinstance(module, BatchNorm2d) for module in Network(make(normless, preprocess=False)).modules())
    for genotype, preprocess in ((normless, True), (MSA, False), (ONE, False)):
        assert make(genotype, preprocess=preprocess).key != make(genotype, preprocess=preprocess, norm=None).key
