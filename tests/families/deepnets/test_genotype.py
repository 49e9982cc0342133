import pickle

import pytest

from ghn_pyg.families.deepnets import DARTS, PDARTS, VIT, Genotype
from ghn_pyg.utils.config import ConfigError

CELL = [("conv_3x3", 0), ("skip_connect", 1), ("cse", 2), ("none", 0)]


def genotype(**changes):
    return Genotype(**{"normal": CELL, "normal_concat": [2, 3], "reduce": CELL[:2], "reduce_concat": [2], **changes})


def test_lists_become_tuples():
    made = Genotype([list(branch) for branch in CELL], [2, 3], CELL[:2], [2])
    assert made.normal == (("conv_3x3", 0), ("skip_connect", 1), ("cse", 2), ("none", 0))
    assert (made.normal_concat, made.reduce_concat) == ((2, 3), (2,))
    assert made == genotype()
    assert hash(made) == hash(genotype())
    assert pickle.loads(pickle.dumps(made)) == made  # noqa: S301
    assert (made.steps, made.operations) == (2, {"conv_3x3", "skip_connect", "cse", "none"})


@pytest.mark.parametrize(
    ("preset", "steps", "first", "last"),
    [
        (DARTS, 4, (("sep_conv_3x3", 0), ("sep_conv_3x3", 1)), (("skip_connect", 2), ("max_pool_3x3", 1))),
        (PDARTS, 4, (("skip_connect", 0), ("dil_conv_3x3", 1)), (("dil_conv_3x3", 1), ("dil_conv_5x5", 3))),
        (VIT, 1, (("none", 0), ("msa", 1)), (("none", 0), ("msa", 1))),
    ],
)
def test_presets(preset, steps, first, last):
    assert preset.steps == steps
    assert preset.normal[:2] == first
    assert preset.reduce[-2:] == last
    assert preset.normal_concat == preset.reduce_concat == tuple(range(2, 2 + steps))
    assert Genotype.from_dict(preset.to_dict()) == preset


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"normal": [("conv_3x4", 0), ("cse", 1)]}, "unknown operation 'conv_3x4' in step 0; did you mean conv_3x3 or"),
        ({"normal": [*CELL[:3], ("cse", 3)]}, "normal expected states 0 to 2 in step 1, not 3"),
        ({"normal": [("cse", -1), ("cse", 1)]}, "normal expected states 0 to 1 in step 0, not -1"),
        ({"normal": CELL[:3]}, "normal expected two branches for each step and at least one step, not 3"),
        ({"reduce": []}, "reduce expected two branches for each step and at least one step, not 0"),
        ({"reduce": 3}, "reduce expected a valid tuple, got 3"),
        ({"reduce": ["cse", "cse"]}, "reduce.0 expected a valid tuple, got 'cse'"),
        ({"reduce": [("cse", True), ("cse", 0)]}, "reduce.0.1 expected a valid integer, got True"),
        ({"normal_concat": [2, 4]}, r"normal_concat expected distinct states from 2 to 3, got \[2, 4\]"),
        ({"normal_concat": [1]}, "normal_concat expected distinct states"),
        ({"normal_concat": [2, 2]}, "normal_concat expected distinct states"),
        ({"reduce_concat": []}, "reduce_concat expected distinct states from 2 to 2"),
        ({"reduce_concat": ["2"]}, "reduce_concat.0 expected a valid integer"),
    ],
)
def test_invalid_genotypes(changes, message):
    with pytest.raises(ConfigError, match=message):
        genotype(**changes)
