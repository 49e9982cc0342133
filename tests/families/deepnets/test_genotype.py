import dataclasses
import pickle

import pytest

from ghn_pyg.families.deepnets.genotype import DARTS, OPERATIONS, PARAMETERLESS, PDARTS, VIT, Genotype

CELL = [("conv_3x3", 0), ("skip_connect", 1), ("cse", 2), ("none", 0)]


def genotype(**changes):
    return Genotype(**{"normal": CELL, "normal_concat": [2, 3], "reduce": CELL[:2], "reduce_concat": [2], **changes})


def test_operations_in_the_order_of_the_paper():
    assert OPERATIONS == (
        "none", "max_pool_3x3", "avg_pool_3x3", "skip_connect", "sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3",
        "dil_conv_5x5", "conv_1x1", "conv_7x1_1x7", "conv_3x3", "conv_5x5", "conv_7x7", "msa", "cse",
    )  # fmt: skip
    assert set(OPERATIONS[:4]) == PARAMETERLESS


def test_lists_are_taken_for_tuples():
    made = genotype(normal=[list(branch) for branch in CELL], reduce_concat=range(2, 3))
    assert made.normal == (("conv_3x3", 0), ("skip_connect", 1), ("cse", 2), ("none", 0))
    assert (made.normal_concat, made.reduce_concat) == ((2, 3), (2,))
    assert made == genotype()
    assert hash(made) == hash(genotype())
    assert pickle.loads(pickle.dumps(made)) == made  # noqa: S301


def test_genotypes_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        genotype().normal = ()


def test_steps_and_operations():
    assert genotype().steps == 2
    assert genotype().operations == {"conv_3x3", "skip_connect", "cse", "none"}
    assert genotype(normal=[("conv_1x1", 0), ("conv_1x1", 1)], normal_concat=[2]).operations == {
        "conv_1x1", "conv_3x3", "skip_connect",
    }  # fmt: skip


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


@pytest.mark.parametrize("preset", [DARTS, PDARTS, VIT])
def test_arguments_and_back(preset):
    args = preset.to_args()
    assert list(args) == ["normal", "normal_concat", "reduce", "reduce_concat"]
    assert all(type(value) is list for value in args.values())
    assert args["normal"][0] == list(preset.normal[0])
    assert Genotype.from_args(args) == preset


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"normal": [("conv_3x4", 0), ("cse", 1)]}, ValueError, "normal: unknown operation 'conv_3x4' in step 0; did"
         " you mean conv_3x3 or "),
        ({"reduce": [("cse", 0), ("zzz", 1)]}, ValueError, "reduce: unknown operation 'zzz' in step 0; expected one of"
         " none, max_pool_3x3"),
        ({"normal": [*CELL[:3], ("cse", 3)]}, ValueError, "normal: step 1 can take states 0 to 2, got 3 for 'cse'"),
        ({"normal": [("cse", -1), ("cse", 1)]}, ValueError, "normal: step 0 can take states 0 to 1, got -1"),
        ({"normal": CELL[:3]}, ValueError, "normal expected two branches for each step and at least one step, got 3"),
        ({"reduce": []}, ValueError, "reduce expected two branches for each step and at least one step, got 0"),
        ({"reduce": 3}, TypeError, "reduce expected a list of branches, got 3"),
        ({"reduce": ["cse", "cse"]}, TypeError, r"reduce expected branches \(operation, state\), got 'cse'"),
        ({"reduce": [("cse", True), ("cse", 0)]}, TypeError, r"reduce expected branches \(operation, state\)"),
        ({"reduce": [(0, "cse"), ("cse", 0)]}, TypeError, r"got \(0, 'cse'\)"),
        ({"normal_concat": [2, 4]}, ValueError, "normal_concat expected one or more of the states 2 to 3, each once,"
         r" got \[2, 4\]"),
        ({"normal_concat": [1]}, ValueError, "normal_concat expected one or more of the states 2 to 3"),
        ({"normal_concat": [2, 2]}, ValueError, "each once"),
        ({"reduce_concat": []}, ValueError, "reduce_concat expected one or more of the states 2 to 2"),
        ({"reduce_concat": ["2"]}, TypeError, "reduce_concat expected the numbers of states"),
        ({"reduce_concat": "2"}, TypeError, "reduce_concat expected a list of states, got '2'"),
    ],
)  # fmt: skip
def test_what_is_no_genotype(changes, error, message):
    with pytest.raises(error, match=message):
        genotype(**changes)


def test_arguments_that_are_none():
    with pytest.raises(TypeError, match="genotype expected a dictionary with normal, normal_concat, reduce"):
        Genotype.from_args([1])
    with pytest.raises(ValueError, match="genotype lacks normal_concat, reduce_concat; it has normal, reduce"):
        Genotype.from_args({"normal": CELL, "reduce": CELL})
    with pytest.raises(ValueError, match="it has nothing"):
        Genotype.from_args({})
