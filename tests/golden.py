"""The golden data, and what is needed to compare with it: seeded weights and graphs up to the order of nodes."""

import functools
import gzip
import hashlib
import json
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import torch
import torchvision

from ghn_pyg import GHN, PRIMITIVES, GHNConfig, from_module
from ghn_pyg.models.checkpoints.published_keys import from_published

FOLDER = Path(__file__).parent / "golden"
NETWORKS = json.loads(gzip.decompress((FOLDER / "torchvision.json.gz").read_bytes()))
STATE_DICT_SHAPES = json.loads((FOLDER / "state_dict_shapes.json").read_text())
PRESETS = {"T": "ghn3tm8", "G2": "ghn2"}


def seeded_state_dict(shapes):
    """{checkpoint name: shape} → {checkpoint name: tensor}, each from NumPy's frozen stream seeded with its name."""
    state = {}
    for name, shape in shapes.items():
        stream = np.random.RandomState(zlib.crc32(name.encode()) & 0x7FFFFFFF)
        value = stream.standard_normal(tuple(shape)).astype("float32")
        if len(shape) > 1:
            value *= 0.5 if "embed" in name else shape[1] ** -0.5
        elif name.endswith("ln.weight") or ".ln1.weight" in name or ".ln2.weight" in name:
            value = 1 + 0.1 * value
        else:
            value *= 0.1
        state[name] = torch.from_numpy(np.asarray(value, dtype="float32"))
    return state


@functools.cache
def seeded_ghn(name):
    """The GHN that the golden predictions come from: ``"T"`` or ``"G2"``."""
    ghn = GHN(GHNConfig.preset(PRESETS[name]))
    ghn.load_state_dict(from_published(seeded_state_dict(STATE_DICT_SHAPES[name])))
    return ghn.eval()


def build(architecture):
    """A torchvision network, without memory where its constructor allows that."""
    options = {"init_weights": False} if architecture in ("googlenet", "inception_v3") else {}
    # RegNet's constructor computes its widths with tensors.
    device = "cpu" if architecture.startswith("regnet") else "meta"
    with torch.device(device):
        return torchvision.models.get_model(architecture, **options)


@functools.cache
def traced(architecture):
    """The graph of a torchvision network."""
    return from_module(build(architecture))


def labelled(graph):
    """Nodes as (type, parameter name or None), and edges."""
    nodes = [
        (PRIMITIVES[kind], names[0] if names else None)
        for kind, names in zip(graph.node_type.tolist(), graph.param_names, strict=True)
    ]
    return nodes, graph.edge_index.t().tolist()


def fingerprint(nodes, edges):
    """Equal for two labelled acyclic graphs that differ in the order of their nodes alone.

    Every node is named after its label and all that leads to it, then after that name and all that it leads to; the
    edges between these names, counted, are the graph (up to nodes that nothing tells apart).
    """
    nodes = [tuple(node) for node in nodes]
    before, after = ([[] for _ in nodes] for _ in range(2))
    for source, target in edges:
        before[target].append(source)
        after[source].append(target)
    names = _unfold([repr(node) for node in nodes], before, after)
    names = _unfold(names, after, before)
    return Counter(nodes), Counter(names), Counter((names[source], names[target]) for source, target in edges)


def _unfold(labels, sources, users):
    waiting = [len(entering) for entering in sources]
    ready = [node for node, count in enumerate(waiting) if not count]
    names = [""] * len(labels)
    done = 0
    while ready:
        node = ready.pop()
        done += 1
        text = repr((labels[node], sorted(names[source] for source in sources[node])))
        names[node] = hashlib.sha256(text.encode()).hexdigest()
        for user in users[node]:
            waiting[user] -= 1
            if not waiting[user]:
                ready.append(user)
    assert done == len(labels), "the graph has a cycle"
    return names
