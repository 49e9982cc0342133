"""Draws a networkx view of an architecture as SVG.

Nodes stand in rows from the input down, one box each. Tall drawings are cut into strips that stand side by side; what
flows from one strip into a later one is repeated at the later one's top, with a dashed outline. networkx's own layered
layout is not enough: it draws skip connections, which a network is full of, straight through the boxes between.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import math
import xml.etree.ElementTree as ET
from collections.abc import Hashable, Iterable, Mapping
from typing import Any, Final

import networkx as nx

Node = Hashable
Cell = tuple[int, int]

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
CHARACTER: Final = 6.05
"""Width of a character of the labels' font, which is monospaced."""
GAP: Final = 46
"""Between columns, for the arcs."""
STRIP_GAP: Final = 60
MARGIN: Final = 24
LEGEND_ROW: Final = 24
LONGEST_NAME: Final = 64
NARROWEST: Final = 420
ASPECT: Final = 1.5
"""Width over height to aim at."""
GHOST_COST: Final = 8
"""How many rows a strip may be higher or lower to spare one repeated node."""

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


@dataclasses.dataclass(frozen=True)
class Strip:
    """A part of a drawing: where its boxes stand, as (row, column), and the edges between them."""

    cells: Mapping[Node, Cell]
    ghosts: frozenset[Node]
    edges: list[tuple[Node, Node]]


def draw_svg(view: nx.DiGraph, title: str = "") -> str:
    """Draws a network's graph.

    Args:
        view: A directed acyclic graph with ``type``, ``name``, ``params`` and ``shape`` on each node, as
            :meth:`~ghn_pyg.ArchData.to_networkx` gives it.
        title: What to write above it.

    Returns:
        The drawing as the text of an SVG file. Boxes show their full text when pointed at.

    Example:
        >>> view = nx.DiGraph()
        >>> view.add_node(0, type="input", name="input", params=[], shape=None)
        >>> draw_svg(view).count("<rect")
        3
    """
    labels = {node: _label(data) for node, data in view.nodes(data=True)}
    width = max(len(name) + len(size) + 3 for name, size in labels.values()) * CHARACTER
    rows = layers(view)
    strips = [place(strip, edges, ghosts) for strip, edges, ghosts in _cut(view, rows, _strip_count(rows, width))]
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


def layers(view: nx.DiGraph) -> dict[Node, int]:
    """A row for each node.

    Ends stand as far down as their longest path is long, all others just above the first that uses them, so that what
    hangs off the input stands where it is needed.
    """
    row = {node: depth for depth, nodes in enumerate(nx.topological_generations(view)) for node in nodes}
    for node in reversed(list(row)):
        row[node] = min((row[after] - 1 for after in view.successors(node)), default=row[node])
    return row


def place(row: Mapping[Node, int], edges: Iterable[tuple[Node, Node]], ghosts: Iterable[Node] = ()) -> Strip:
    """Gives each node a column, so that the longest way stays in one and branches stand to its right.

    Args:
        row: Rows of the nodes.
        edges: Edges between them, each to a later row.
        ghosts: Which of the nodes are repeated from an earlier strip.
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
    heir: dict[Node, Node] = {}  # who goes on in a node's column
    passed: collections.Counter[int] = collections.Counter()  # where the edges end that run down a column
    for _, same in itertools.groupby(order, key=row.__getitem__):
        # The parent of a join is its nearest and leftmost input.
        parent = {
            node: max(before[node], key=lambda source: (row[source], -column[source]), default=None)
            for node in sorted(same, key=lambda node: -height[node])
        }
        first = [node for node, source in parent.items() if heir.setdefault(source, node) == node]
        taken: set[int] = set()
        for node in [*first, *(node for node in parent if node not in first)]:
            wish = column[parent[node]] if parent[node] is not None else 0
            if node in ghosts or (node in first and wish not in taken):
                column[node] = wish
            else:
                free = (place for place in itertools.count(wish) if place not in taken and passed[place] <= row[node])
                column[node] = next(free)
            taken.add(column[node])
        for node in parent:
            passed[column[node]] = max(passed[column[node]], row[node], *(row[target] for target in after[node]))
    return Strip({node: (row[node], column[node]) for node in order}, ghosts, edges)


def _strip_count(row: Mapping[Node, int], width: float) -> int:
    rows, widest = max(row.values()) + 1, max(collections.Counter(row.values()).values())
    return max(1, round(math.sqrt(ASPECT * rows * ROW / (min(widest, 3) * (width + GAP) + STRIP_GAP))))


def _cut(
    view: nx.DiGraph, row: Mapping[Node, int], count: int
) -> Iterable[tuple[dict[Node, int], list[tuple[Node, Node]], list[Node]]]:
    """Cuts the rows into strips of about equal heights, where few nodes are needed further down."""
    rows = max(row.values()) + 1
    last_use = {node: max((row[after] for after in view.successors(node)), default=row[node]) for node in view}
    # How many more nodes than one row before are needed from a row on.
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
        placed = {node: place for place, node in enumerate(ghosts)}
        placed.update((node, row[node] - start + len(ghosts)) for node in inside)
        yield placed, edges, ghosts


def _draw_edges(group: ET.Element, strip: Strip, width: float) -> None:
    occupied = set(strip.cells.values())
    for source, target in strip.edges:
        (above, column), (below, end) = strip.cells[source], strip.cells[target]
        start, finish = column * (width + GAP) + width / 2, end * (width + GAP) + width / 2
        between = range(above + 1, below)
        path = f"M{_numbers(start, above * ROW + BOX)}"
        kind = "edge"
        if all((row, column) not in occupied for row in between):
            path += f"V{(below - 1) * ROW + BOX}" + _over(start, finish, below - 1)
        elif all((row, end) not in occupied for row in between):
            path += _over(start, finish, above) + f"V{below * ROW}"
        elif column == end:
            path, kind = _arc(finish + width / 2, above, below), "skip"
        else:  # down the gap beside the target's column, which no box stands in
            side = -1 if end > column else 1
            lane, door, y = finish + side * (width + GAP) / 2, finish + side * width / 2, below * ROW + BOX / 2
            path += _over(start, lane, above) + f"V{y - 8:.1f}Q{_numbers(lane, y, door, y)}"
        _add(group, "path", **{"class": kind, "d": path})


def _over(x: float, to: float, row: int) -> str:
    """From below a row to above the next one, sideways in the space between."""
    top, bottom = row * ROW + BOX, (row + 1) * ROW
    middle = (top + bottom) / 2
    return f"V{bottom}" if x == to else f"C{_numbers(x, middle + 4, to, middle - 4, to, bottom)}"


def _arc(x: float, above: int, below: int) -> str:
    """From a box to one below it in the same column, around those between."""
    y, down = above * ROW + BOX / 2, below * ROW + BOX / 2
    bulge = x + min(14 + 7 * math.sqrt(below - above), GAP * 1.25)  # a curve reaches three quarters as far
    return f"M{_numbers(x, y)}C{_numbers(bulge, y, bulge, down, x, down)}"


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
    """The title and what the colours mean, and where they end."""
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
    """Name and size of a node; a vector's size is its length, a kernel's without channels its sides."""
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
