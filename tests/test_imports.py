"""Imports point down, without circles, and importing a module has no extra cost."""

import ast
import importlib
import sys
import warnings
from pathlib import Path

import networkx as nx
import pytest

import ghn_pyg
from tests.training.tiny import start

ROOT = Path(ghn_pyg.__file__).parent
MODULES = sorted(path.relative_to(ROOT.parent).with_suffix("").parts for path in ROOT.rglob("*.py"))
NAMES = [".".join(module).removesuffix(".__init__") for module in MODULES]

# From the ground to the roof: a subpackage imports from itself and from those before it.
FLOORS = (
    "version", "deprecated", "utils", "graph", "transforms", "nn", "tracing", "families", "models", "zoo", "data",
    "starts", "training", "finetuning", "evaluation", "bench", "viz", "cli",
)  # fmt: skip
# Layers know tensors only.
NN_MAY_IMPORT = {"nn", "utils"}


def imports(module, source):
    """The modules of the package that ``source`` imports from, inside functions and for type checking too."""
    package = module[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found = [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            base += tuple(node.module.split(".")) if node.module else ()
            found = [(*base, alias.name) for alias in node.names]
        else:
            continue
        for name in found:
            if name[0] == "ghn_pyg":
                yield name if name in MODULES or (*name, "__init__") in MODULES else name[:-1]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from ..graph import ArchData", [("graph",)]),
        ("from ..graph.arch_data import ArchData", [("graph", "arch_data")]),
        ("from .rewrite_passes import rewrite", [("tracing", "rewrite_passes")]),
        ("from . import rewrite_passes, steps", [("tracing", "rewrite_passes"), ("tracing", "steps")]),
        ("import ghn_pyg.models.ghn as ghn", [("models", "ghn")]),
        ("import torch\nfrom torch import nn", []),
        ("def main():\n    from ..models.ghn import GHN", [("models", "ghn")]),
    ],
)
def test_imports_are_found(source, expected):
    assert list(imports(("ghn_pyg", "tracing", "trace"), source)) == [("ghn_pyg", *name) for name in expected]


def test_imports_point_down_without_circles():
    graph = nx.DiGraph()
    for module, name in zip(MODULES, NAMES, strict=True):
        for imported in imports(module, ROOT.parent.joinpath(*module).with_suffix(".py").read_text("utf-8")):
            graph.add_edge(name, ".".join(imported))
    graph.remove_edges_from(list(nx.selfloop_edges(graph)))
    assert list(nx.simple_cycles(graph)) == []
    for name, imported in graph.edges:
        if name == "ghn_pyg":
            continue
        own, other = name.split(".")[1], [*imported.split("."), ""][1]
        assert own in FLOORS, f"say in FLOORS where {own} stands"
        assert other in FLOORS[: FLOORS.index(own) + 1], f"{name} imports {imported}, which is not below"
        assert own != "nn" or other in NN_MAY_IMPORT, f"{name} imports {imported}"


def test_no_loose_files_at_the_root():
    assert {path.name for path in ROOT.iterdir() if path.is_file()} == {
        "__init__.py", "__init__.pyi", "py.typed", "version.py"
    }  # fmt: skip


def test_public_names():
    for path in ROOT.rglob("__init__.py"):
        name = ".".join(path.parent.relative_to(ROOT.parent).parts)
        package = sys.modules.get(name) or __import__(name, fromlist=["_"])
        for public in getattr(package, "__all__", ()):
            assert not isinstance(getattr(package, public), type(sys)), f"{name}.{public} is a module"


EXTRAS = {"h5py", "lightning_fabric", "matplotlib", "sklearn", "tensorboard", "timm", "torch_scatter"}


def forget(roots):
    for name in [name for name in sys.modules if name.split(".")[0] in roots]:
        del sys.modules[name]


def import_each_by_itself():
    warnings.simplefilter("ignore")
    forget(EXTRAS)
    for name in NAMES:
        forget({"ghn_pyg"})
        importlib.import_module(name)
    assert not EXTRAS.intersection(sys.modules)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_every_module_imports_by_itself_and_no_extra():
    process = start(import_each_by_itself)
    process.join()
    assert process.exitcode == 0
