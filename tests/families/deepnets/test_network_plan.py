import networkx as nx
import numpy as np
import pytest

from ghn_pyg.families.deepnets import DARTS, OPERATIONS, PDARTS, VIT, Architecture, Genotype, Network, count_parameters
from ghn_pyg.families.deepnets.network_plan import plan_network, reduction_cells, wire_cell, wire_cells

CONV = (("conv_3x3", 0), ("conv_1x1", 1))
ONE = Genotype(CONV, [2], CONV, [2])
FIRST_ONLY = Genotype((("conv_3x3", 0), ("none", 1)), [2], (("conv_1x1", 0), ("none", 1)), [2])
CUT = Genotype(CONV, [2], (("none", 0), ("none", 1)), [2])


def make(genotype=ONE, cells=5, **fields):
    return Architecture(genotype=genotype, cells=cells, **fields)


def shapes(architecture, **sizes):
    """Shapes of the parameters of stem and head."""
    plan = plan_network(architecture, **sizes)
    return {
        name + short: size
        for name, block in (*plan.stem, *plan.head)
        for node in block.nodes
        for short, size, _ in node.params
    }


@pytest.mark.parametrize(
    ("cells", "places"),
    [(1, ()), (2, (1,)), (3, (1, 2)), (4, (1, 2)), (5, (1, 3)), (8, (2, 5)), (14, (4, 9)), (36, (12, 24))],
)
def test_reduction_cells(cells, places):
    assert reduction_cells(cells) == places


def test_a_literal_cell():
    branches = [("cse", 0), ("none", 1), ("none", 0), ("none", 2), ("msa", 1), ("cse", 3), ("msa", 2), ("cse", 0)]
    assert wire_cell(branches, [2, 3], (True, True)) == ((True, False), (1, 0, 0, 0, 0, 0, 0, 0), True)
    assert wire_cell(branches, [4, 5], (True, True)) == ((True, True), (1, 0, 0, 0, 1, 0, 1, 1), True)
    assert wire_cell(branches, [4], (True, False)) == ((False, False), (0,) * 8, False)


def random_genotype(numbers, steps):
    def cell():
        names = numbers.choice(OPERATIONS, 2 * steps, p=[0.4, *[0.6 / 14] * 14])
        return [(str(name), int(numbers.integers(place // 2 + 2))) for place, name in enumerate(names)]

    concat = sorted({steps + 1, *map(int, numbers.integers(2, steps + 2, 2))})
    return Genotype(cell(), concat, cell(), concat)


def reference(architecture, needed):
    """Branches and inputs on a path from an input to the output of a needed cell."""
    flow, genotype = nx.DiGraph(), architecture.genotype
    outputs = ["input 0", "input 1"]
    for cell in range(architecture.cells):
        reduce = cell in reduction_cells(architecture.cells)
        states = [f"{cell} state {state}" for state in range(len(genotype.normal) + 2)]
        flow.add_edges_from(zip(outputs[-2:], states[:2], strict=True))
        for place, (name, state) in enumerate(genotype.reduce if reduce else genotype.normal):
            if name != "none":
                flow.add_edge(states[state], f"{cell} branch {place}")
                flow.add_edge(f"{cell} branch {place}", states[place // 2 + 2])
        outputs.append(f"{cell} output")
        flow.add_edges_from((states[state], outputs[-1]) for state in genotype.normal_concat)
    ends = [outputs[cell + 2] for cell in needed]
    flow.add_nodes_from(["input 0", "input 1", *ends])
    fed = {"input 0", "input 1"}.union(*(nx.descendants(flow, place) for place in ("input 0", "input 1")))
    if not all(end in fed for end in ends):
        return None
    return fed & set(ends).union(*(nx.ancestors(flow, end) for end in ends))


def test_used_branches_lie_on_a_path_from_an_input_to_the_output():
    numbers, cut = np.random.default_rng(3), 0
    for _ in range(300):
        cells = int(numbers.integers(1, 9))
        architecture = make(random_genotype(numbers, int(numbers.integers(1, 5))), cells)
        needed = sorted({cells - 1, int(numbers.integers(cells))})
        wired, expected = wire_cells(architecture, needed), reference(architecture, needed)
        assert (wired is None) == (expected is None)
        if wired is None:
            cut += 1
            continue
        wirings, whole_stem = wired
        assert whole_stem == ("input 1" in expected)
        for cell, wiring in enumerate(wirings):
            assert wiring.inputs == (f"{cell} state 0" in expected, f"{cell} state 1" in expected)
            assert wiring.output == (f"{cell} output" in expected)
            places = range(len(wiring.branches))
            assert wiring.branches == tuple(f"{cell} branch {place}" in expected for place in places)
    assert 30 < cut < 270


def test_networks_whose_output_does_not_depend_on_the_input():
    with pytest.raises(ValueError, match="the output does not depend on the input"):
        plan_network(make(CUT, 4))
    assert plan_network(make(CUT, 1)).cells
    message = "the output or auxiliary classifier does not .* use another genotype or no auxiliary classifier"
    with pytest.raises(ValueError, match=message):
        plan_network(make(Genotype(FIRST_ONLY.normal, [2], CUT.reduce, [2]), 6), auxiliary=True)


@pytest.mark.parametrize(
    ("size", "patch", "side"), [(4, 3, 2), (16, 3, 6), (32, 3, 11), (64, 3, 22), (65, 16, 4), (224, 16, 14)]
)
def test_patches(size, patch, side):
    found = shapes(make(VIT, preprocess=False, classifier_layers=2), image_size=size, width=24, hidden=7)
    assert found == {
        "stem0.weight": (24, 3, patch, patch), "pos_enc.weight": (1, 24, side, side),
        "classifier.0.weight": (7, 24), "classifier.0.bias": (7,), "classifier.3.weight": (10, 7),
        "classifier.3.bias": (10,),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "size", "channels", "features"),
    [
        ({}, 32, 24, 8 * 8 * 8),
        ({"stem_pool": True}, 32, 24, 8 * 4 * 4),
        ({"preprocess": False}, 32, 8, 8 * 8 * 8),
        ({"multiplier": 3}, 32, 24, 8 * 9 * 8 * 8),
        ({}, 224, 8, 8 * 14 * 14),
        ({"imagenet_stride": 2, "stem_pool": True}, 224, 8, 8 * 14 * 14),
        ({"imagenet_stride": 2}, 100, 8, 8 * 13 * 13),
        ({}, 30, 24, 8 * 8 * 8),
        ({"global_average": True}, 224, 8, 8),
    ],
)
def test_a_simple_stem_and_a_flattened_head(fields, size, channels, features):
    found = shapes(
        make(**{"stem_kernel": 5, "global_average": False, **fields}), image_size=size, width=8, num_classes=3
    )
    assert found["stem.0.weight"] == (channels, 3, 5, 5)
    assert found["stem.1.bias"] == (channels,)
    assert found["classifier.0.weight"] == (3, features)


@pytest.mark.parametrize(("size", "features"), [(32, 4 * 4), (16, 2 * 2), (224, 7 * 7), (5, 1)])
def test_a_stem_of_two_parts(size, features):
    found = shapes(make(stem_type=1, stem_kernel=7, global_average=False, norm=None), image_size=size, width=6)
    assert found == {
        "stem0.0.weight": (3, 3, 7, 7), "stem0.3.weight": (6, 3, 3, 3), "stem1.1.weight": (6, 6, 3, 3),
        "classifier.0.weight": (10, 6 * features), "classifier.0.bias": (10,),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("sizes", "error", "message"),
    [
        ({"num_classes": 0}, ValueError, "num_classes must be at least 1, got 0"),
        ({"image_size": 3}, ValueError, "image_size must be at least 4, got 3"),
        ({"width": 1}, ValueError, "width must be at least 2, got 1"),
        ({"image_size": (32, 32)}, TypeError, r"image_size expected an integer, got \(32, 32\)"),
    ],
)
def test_sizes_out_of_range(sizes, error, message):
    with pytest.raises(error, match=message):
        plan_network(make(), **sizes)


@pytest.mark.parametrize("architecture", [make(DARTS, 7), make(PDARTS, 4, norm=None), make(VIT, 3), make(FIRST_ONLY)])
@pytest.mark.parametrize("sizes", [{}, {"image_size": 224, "num_classes": 7, "width": 16}, {"auxiliary": True}])
def test_counts_equal_those_of_the_network(architecture, sizes):
    built = sum(parameter.numel() for parameter in Network(architecture, **sizes).parameters())
    assert count_parameters(architecture, **sizes) == built
