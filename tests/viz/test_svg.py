import itertools
import re
import xml.etree.ElementTree as ET

import networkx as nx
import pytest

from ghn_pyg import from_module
from ghn_pyg.graph.node_types import PRIMITIVES
from ghn_pyg.viz.svg import FILL, assign_columns, assign_rows, draw_svg
from ghn_pyg.zoo import skeleton

SVG = "{http://www.w3.org/2000/svg}"


def view_of(edges, count):
    view = nx.DiGraph(edges)
    for node in range(count):
        name = f"layer{node}"
        view.add_node(node, type="conv" if node else "input", name=name, params=[name], shape=(2, 3, 5, 7))
    return view


def boxes(svg):
    """Left, top, width, height and dashed outline of every node's box."""
    for strip in ET.fromstring(svg).findall(f"{SVG}g[@transform]"):
        left, top = map(float, re.findall(r"[\d.]+", strip.get("transform")))
        for rect in strip.iter(f"{SVG}rect"):
            x, y, width, height = (float(rect.get(name)) for name in ("x", "y", "width", "height"))
            yield left + x, top + y, width, height, rect.get("class") == "ghost"


def test_every_node_type_has_its_own_colour():
    assert set(FILL) == set(PRIMITIVES)
    assert len(set(FILL.values())) == 15


def test_rows_stand_just_above_their_use():
    # 5 is a root that is used late, 6 hangs off the input and is used late, 7 is an end that nothing uses.
    view = view_of([(0, 1), (1, 2), (2, 3), (3, 4), (5, 4), (0, 6), (6, 4), (1, 7)], 8)
    assert assign_rows(view) == {0: 0, 1: 1, 2: 2, 3: 3, 4: 4, 5: 3, 6: 3, 7: 2}


def test_the_longest_way_stays_in_the_first_column():
    # A residual block whose short branch (4, 5) ends early; a second branch must not stand in its way.
    edges = [(0, 1), (1, 2), (2, 3), (0, 4), (4, 3), (0, 5), (5, 6), (6, 3)]
    strip = assign_columns({0: 0, 1: 1, 2: 2, 3: 3, 4: 1, 5: 1, 6: 2}, edges)
    assert strip.cells == {0: (0, 0), 1: (1, 0), 2: (2, 0), 3: (3, 0), 5: (1, 1), 6: (2, 1), 4: (1, 2)}


def test_a_branch_does_not_stand_on_a_long_edge():
    # 5 ends a branch in the column of 4, and its edge runs down to 3; 6 starts later and goes further right.
    edges = [(0, 1), (1, 2), (2, 7), (7, 3), (0, 5), (5, 3), (1, 6), (6, 7)]
    strip = assign_columns({0: 0, 1: 1, 5: 1, 2: 2, 6: 2, 7: 3, 3: 4}, edges)
    assert strip.cells[5] == (1, 1)
    assert strip.cells[6] == (2, 2)


@pytest.mark.parametrize("name", ["resnet18", "inception_v3", "densenet121", "swin_v2_t", "efficientnet_v2_l"])
def test_networks(name):
    graph = from_module(*skeleton(name))
    view = graph.to_networkx()
    svg = draw_svg(view, name)
    drawn = list(boxes(svg))
    assert sum(not ghost for *_, ghost in drawn) == len(view)
    for (x, y, width, height, _), (x2, y2, *_) in itertools.combinations(drawn, 2):
        assert abs(x - x2) >= width or abs(y - y2) >= height
    root = ET.fromstring(svg)
    assert len(root.findall(f".//{SVG}path")) == view.number_of_edges()
    right, bottom = float(root.get("width")), float(root.get("height"))
    assert all(x >= 0 and x + width <= right and y + height <= bottom for x, y, width, height, _ in drawn)
    assert right / bottom < 4
    texts = {element.text for element in root.iter(f"{SVG}text")}
    assert f"{name}: {len(view)} nodes, {view.number_of_edges()} edges" in texts
    assert set(graph.node_names) <= texts


def test_resnet18_has_one_repeated_node_and_all_its_types_in_the_legend():
    svg = draw_svg(from_module(*skeleton("resnet18")).to_networkx())
    assert [ghost for *_, ghost in boxes(svg)].count(True) == 1
    texts = [element.text for element in ET.fromstring(svg).iter(f"{SVG}text")]
    legend = ["53 nodes, 60 edges", "input 1", "conv 21", "bias 1", "bn 20", "max_pool 1", "glob_avg 1", "sum 8"]
    assert texts[:9] == [*legend, "repeated from an earlier column"]
    assert texts[9:12] == ["input", "conv1.weight", "64×3×7×7"]
    assert texts[texts.index("maxpool:max_pool") + 1] == "3×3"
    assert texts[-4:] == ["fc.weight", "1000×512", "fc.bias", "1000"]


def test_a_thousand_nodes_in_a_chain_with_skips():
    edges = [*((node, node + 1) for node in range(999)), *((node, node + 5) for node in range(0, 995, 5))]
    root = ET.fromstring(draw_svg(view_of(edges, 1000)))
    assert len(root.findall(f".//{SVG}path")) == 999 + 199
    assert 0.5 < float(root.get("width")) / float(root.get("height")) < 3


def test_text_is_escaped_and_long_names_are_cut_in_the_middle():
    view = view_of([], 1)
    view.nodes[0].update(name="<&" + "x" * 100 + '">', params=[])
    texts = [element.text for element in ET.fromstring(draw_svg(view, "<title>")).iter(f"{SVG}text")]
    assert texts[0] == "<title>: 1 nodes, 0 edges"
    assert texts[2] == "<&" + "x" * 29 + "…" + "x" * 30 + '">'
