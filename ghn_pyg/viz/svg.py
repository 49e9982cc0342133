"""Draws a networkx view of an architecture as SVG.

Each node is a box, in rows from the input down. Tall drawings are cut into strips side by side. If a strip needs a node
of an earlier strip, it repeats it at its top, with a dashed outline. networkx's layered layout would draw skip
connections through the boxes between.
"""

from __future__ import annotations

import collections
import itertools
import math
import xml.etree.ElementTree as ET
from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

import networkx as nx

Node = Hashable
Edge = tuple[Node, Node]

FILL: Final[dict[str, str]] = {
    "input": "#cfd4da",
    "conv": "#8fbbe8",
    "sep_conv": "#bfdcf5",
    "dil_conv": "#6d97d6",
    "bias": "#eceff2",
    "bn": "#a5d69b",
    "ln": "#d3ecc2",
    "max_pool": "#f3a07c",
    "avg_pool": "#fac6a0",
    "glob_avg": "#f6dc74",
    "msa": "#c8a5e2",
    "cse": "#f2a3c4",
    "pos_enc": "#7fd1c7",
    "sum": "#dccba4",
    "concat": "#bd9f77",
}
"""Colours by node type, in the order of the legend."""

ROW: Final = 30
BOX: Final = 19
CHARACTER: Final = 6.05  # width of a character of the monospaced labels
GAP: Final = 46  # space between columns, for the arcs
STRIP_GAP: Final = 60
MARGIN: Final = 24
LEGEND_ROW: Final = 24
LONGEST_NAME: Final = 64
NARROWEST: Final = 420
ASPECT: Final = 1.5  # target of width over height
GHOST_COST: Final = 8  # cost of a repeated node, in rows by which the heights of strips differ

_STYLE: Final = """
text { font: 10px "DejaVu Sans Mono", Menlo, Consolas, monospace; fill: #1c2733; }
.title { font: 600 15px "DejaVu Sans", Helvetica, Arial, sans-serif; }
.key { font: 12px "DejaVu Sans", Helvetica, Arial, sans-serif; }
.size { fill: #5b6875; text-anchor: end; }
rect { stroke: #4a5866; stroke-width: 0.8; }
.ghost { stroke-dasharray: 3 2; fill-opacity: 0.45; }
.edge { fill: none; stroke: #52606d; stroke-width: 1; stroke-opacity: 0.75; }
.skip { fill: none; stroke: #b0552f; stroke-width: 1; stroke-opacity: 0.6; }
"""


class Strip(NamedTuple):
    """A part of a drawing: (row, column) of each box, repeated boxes, and the edges between boxes."""

    cells: Mapping[Node, tuple[int, int]]
    ghosts: frozenset[Node]
    edges: list[Edge]


def draw_svg(view: nx.DiGraph, title: str = "") -> str:
    """Draws a network's graph.

    Args:
        view: A directed acyclic graph with ``type``, ``name``, ``params`` and ``shape`` on each node, as
            :meth:`~ghn_pyg.ArchData.to_networkx` gives it.
        title: The title above the drawing.

    Returns:
        The content of an SVG file. Boxes show their full text as a tooltip.

    Example:
        >>> view = nx.DiGraph()
        >>> view.add_node(0, type="input", name="input", params=[], shape=None)
        >>> draw_svg(view).count("<rect")
        3
    """
    labels = {node: _label(data) for node, data in view.nodes(data=True)}
    width = max(len(name) + len(size) + 3 for name, size in labels.values()) * CHARACTER
    strips = list(_cut_into_strips(view, assign_rows(view), width))
    columns = [max(column for _, column in strip.cells.values()) + 1 for strip in strips]
    inner = max(sum(columns) * (width + GAP) + STRIP_GAP * (len(strips) - 1), NARROWEST)
    legend, top = _legend(view, title, inner, any(strip.ghosts for strip in strips))
    height = top + max(row for strip in strips for row, _ in strip.cells.values()) * ROW + BOX + MARGIN

    size = {"width": f"{inner + 2 * MARGIN:.0f}", "height": f"{height:.0f}"}
    view_box = f"0 0 {size['width']} {size['height']}"
    svg = ET.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", "viewBox": view_box, **size})
    _add(svg, "title", title or "architecture")
    _add(svg, "style", _STYLE)
    _add(svg, "rect", width="100%", height="100%", style="fill: white; stroke: none")
    svg.append(legend)
    left = float(MARGIN)
    for strip, count in zip(strips, columns, strict=True):
        group = _add(svg, "g", transform=f"translate({_numbers(left, top)})")
        _draw_edges(group, strip, width)
        _draw_boxes(group, strip, width, view, labels)
        left += count * (width + GAP) + STRIP_GAP
    ET.indent(svg)
    return ET.tostring(svg, encoding="unicode") + "\n"


def assign_rows(view: nx.DiGraph) -> dict[Node, int]:
    """Assigns a row to each node: just above its first use, and for outputs the length of the longest path to them."""
    row = {node: depth for depth, nodes in enumerate(nx.topological_generations(view)) for node in nodes}
    for node in reversed(list(row)):
        row[node] = min((row[after] - 1 for after in view.successors(node)), default=row[node])
    return row


def assign_columns(row: Mapping[Node, int], edges: Iterable[Edge], ghosts: Iterable[Node] = ()) -> Strip:
    """Assigns a column to each node: the longest path stays in one column, with branches to its right.

    Args:
        row: Rows of the nodes.
        edges: Edges between the nodes, each to a later row.
        ghosts: Nodes that are repeated from an earlier strip.
    """
    edges, ghosts = list(edges), frozenset(ghosts)
    order = sorted(row, key=row.__getitem__)
    before, after = collections.defaultdict(list), collections.defaultdict(list)
    for source, target in edges:
        before[target].append(source)
        after[source].append(target)
    height: dict[Node, int] = {}
    for node in reversed(order):
        height[node] = 1 + max((height[target] for target in after[node]), default=0)
    column: dict[Node, int] = {}
    heir: dict[Node, Node] = {}  # the node that continues the column of another
    occupied_to: collections.Counter[int] = collections.Counter()  # the last row of the edges down a column
    for _, same_row in itertools.groupby(order, key=row.__getitem__):
        # The parent of a join is its nearest and leftmost input.
        parent = {
            node: max(before[node], key=lambda source: (row[source], -column[source]), default=None)
            for node in sorted(same_row, key=lambda node: -height[node])
        }
        heirs = [node for node, source in parent.items() if heir.setdefault(source, node) == node]
        taken: set[int] = set()
        for node in [*heirs, *(node for node in parent if node not in heirs)]:
            wish = column[parent[node]] if parent[node] is not None else 0
            if node not in ghosts and (node not in heirs or wish in taken):
                wish = next(c for c in itertools.count(wish) if c not in taken and occupied_to[c] <= row[node])
            column[node] = wish
            taken.add(wish)
        for node in parent:
            last = max(row[node], *(row[target] for target in after[node]), occupied_to[column[node]])
            occupied_to[column[node]] = last
    return Strip({node: (row[node], column[node]) for node in order}, ghosts, edges)


def _cut_into_strips(view: nx.DiGraph, row: Mapping[Node, int], width: float) -> Iterator[Strip]:
    """Cuts the rows into strips of about equal heights, where few nodes are used further down."""
    rows, widest = max(row.values()) + 1, max(collections.Counter(row.values()).values())
    count = round(math.sqrt(ASPECT * rows * ROW / (min(widest, 3) * (width + GAP) + STRIP_GAP)))
    last_use = {node: max((row[after] for after in view.successors(node)), default=row[node]) for node in view}
    # How many more nodes are needed from a row on than from the row before.
    change = collections.Counter(row[node] + 1 for node in view)
    change.subtract(last_use[node] + 1 for node in view)
    crossing = list(itertools.accumulate(change[cut] for cut in range(rows)))
    cuts = [0]
    for number in range(1, count):
        cost = {cut: abs(cut - rows * number / count) + GHOST_COST * crossing[cut] for cut in range(1, rows)}
        best = min(cost, key=cost.__getitem__)
        if min(best - cuts[-1], rows - best) > rows / (3 * count):
            cuts.append(best)
    for start, end in itertools.pairwise([*cuts, rows]):
        inside = {node for node in view if start <= row[node] < end}
        edges = [(source, target) for source, target in view.edges if target in inside]
        ghosts = sorted({source for source, _ in edges if source not in inside}, key=row.__getitem__)
        strip_row = {node: index for index, node in enumerate(ghosts)}
        strip_row.update((node, row[node] - start + len(ghosts)) for node in inside)
        yield assign_columns(strip_row, edges, ghosts)


def _draw_edges(group: ET.Element, strip: Strip, width: float) -> None:
    occupied = set(strip.cells.values())
    for source, target in strip.edges:
        (above, column), (below, end) = strip.cells[source], strip.cells[target]
        start, finish = column * (width + GAP) + width / 2, end * (width + GAP) + width / 2
        between = range(above + 1, below)
        path = f"M{_numbers(start, above * ROW + BOX)}"
        kind = "edge"
        if all((row, column) not in occupied for row in between):
            path += f"V{(below - 1) * ROW + BOX}" + _sideways(start, finish, below - 1)
        elif all((row, end) not in occupied for row in between):
            path += _sideways(start, finish, above) + f"V{below * ROW}"
        elif column == end:  # around the boxes between
            x, top, bottom = finish + width / 2, above * ROW + BOX / 2, below * ROW + BOX / 2
            bulge = x + min(14 + 7 * math.sqrt(below - above), GAP * 1.25)  # a curve reaches three quarters as far
            path, kind = f"M{_numbers(x, top)}C{_numbers(bulge, top, bulge, bottom, x, bottom)}", "skip"
        else:  # down the gap beside the target's column, which has no boxes
            side = -1 if end > column else 1
            lane, door, y = finish + side * (width + GAP) / 2, finish + side * width / 2, below * ROW + BOX / 2
            path += _sideways(start, lane, above) + f"V{y - 8:.1f}Q{_numbers(lane, y, door, y)}"
        _add(group, "path", **{"class": kind, "d": path})


def _sideways(x: float, to: float, row: int) -> str:
    """A path from below a row to above the next row."""
    top, bottom = row * ROW + BOX, (row + 1) * ROW
    middle = (top + bottom) / 2
    return f"V{bottom}" if x == to else f"C{_numbers(x, middle + 4, to, middle - 4, to, bottom)}"


def _draw_boxes(group: ET.Element, strip: Strip, width: float, view: nx.DiGraph, labels: Mapping[Node, Any]) -> None:
    for node, (row, column) in strip.cells.items():
        data = view.nodes[node]
        x, y = column * (width + GAP), row * ROW
        box = _add(group, "g")
        facts = [f"{node}: {data['type']}", data["name"], *data["params"][1:]]
        _add(box, "title", "\n".join(facts))
        shape = {"x": f"{x:.1f}", "y": str(y), "width": f"{width:.1f}", "height": str(BOX), "rx": "4"}
        kind = {"class": "ghost"} if node in strip.ghosts else {}
        _add(box, "rect", **shape, fill=FILL[data["type"]], **kind)
        name, size = labels[node]
        _add(box, "text", name, x=f"{x + CHARACTER:.1f}", y=str(y + 13))
        if size:
            _add(box, "text", size, **{"class": "size", "x": f"{x + width - CHARACTER:.1f}", "y": str(y + 13)})


def _legend(view: nx.DiGraph, title: str, width: float, ghosts: bool) -> tuple[ET.Element, float]:
    """The title and the meaning of the colours, and the position below them."""
    group = ET.Element("g")
    counts = collections.Counter(kind for _, kind in view.nodes(data="type"))
    facts = f"{len(view)} nodes, {view.number_of_edges()} edges"
    _add(group, "text", f"{title}: {facts}" if title else facts, **{"class": "title", "x": str(MARGIN), "y": "34"})
    keys = [(f"{kind} {counts[kind]}", {"fill": FILL[kind]}) for kind in FILL if kind in counts]
    if ghosts:
        keys.append(("repeated from an earlier column", {"fill": "white", "class": "ghost"}))
    x, y = float(MARGIN), 50.0
    for text, look in keys:
        step = 44 + 7.2 * len(text)
        if x > MARGIN and x + step > width + MARGIN:
            x, y = float(MARGIN), y + LEGEND_ROW
        _add(group, "rect", x=f"{x:.1f}", y=f"{y:.1f}", width="18", height="14", rx="3", **look)
        _add(group, "text", text, **{"class": "key", "x": f"{x + 24:.1f}", "y": f"{y + 11.5:.1f}"})
        x += step
    return group, y + 2 * LEGEND_ROW


def _label(data: Mapping[str, Any]) -> tuple[str, str]:
    """Name and size of a node: the shape of its weight without trailing ones, or the kernel size of a pool."""
    name, shape = data["name"], data["shape"]
    if len(name) > LONGEST_NAME:
        half = LONGEST_NAME // 2
        name = f"{name[: half - 1]}…{name[-half:]}"
    sides = [*(shape or ())] if data["params"] else [*(shape or ())][2:]
    while data["params"] and len(sides) > 1 and sides[-1] == 1:
        sides.pop()
    return name, "×".join(map(str, sides))


def _add(parent: ET.Element, tag: str, text: str = "", **attributes: str) -> ET.Element:
    element = ET.SubElement(parent, tag, attributes)
    element.text = text or None
    return element


def _numbers(*values: float) -> str:
    return " ".join(f"{value:.1f}".removesuffix(".0") for value in values)
