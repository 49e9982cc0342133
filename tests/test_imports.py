import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ghn_pyg

ROOT = Path(ghn_pyg.__file__).parent
MODULES = sorted(path.relative_to(ROOT).with_suffix("").parts for path in ROOT.rglob("*.py"))

# From the ground to the roof; a part may import from lower floors and from itself.
FLOORS = (
    ("version", "primitives", "files", "shards", "figures", "collecting", "naming", "skeletons", "fields", "yamls"),
    ("data", "transforms"),
    ("deepnets", "graphs", "nn"),
    ("apply", "caching", "small_inputs"),
    ("models",),
    ("vision", "images"),
    ("networks",),
    ("training",),
    ("finetuning",),
    ("evaluation",),
    ("bench",),
    ("cli",),
)
FLOOR = {part: floor for floor, parts in enumerate(FLOORS) for part in parts}
# Layers know tensors alone.
ALONE = {"nn"}


def imported_parts(module, source):
    """The parts of the package that the source of ``module`` imports from, wherever it does."""
    package = module[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
            found = [name[1:] for name in names if name[0] == "ghn_pyg"]
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            parts = base + (node.module.split(".") if node.module else [])
            if not node.level:
                if parts[0] != "ghn_pyg":
                    continue
                parts = parts[1:]
            # `from . import layers` imports the modules that it names.
            found = [parts] if parts else [[alias.name] for alias in node.names]
        else:
            continue
        yield from (parts[0] if parts else "" for parts in found)


@pytest.mark.parametrize(
    ("module", "source", "parts"),
    [
        (("graphs", "module"), "from ..data import ArchData", ["data"]),
        (("graphs", "module"), "from .passes import rewrite", ["graphs"]),
        (("graphs", "module"), "from . import passes, steps", ["graphs"]),
        (("graphs", "module"), "from .. import data, nn", ["data", "nn"]),
        (("apply",), "from .data import ArchData", ["data"]),
        (("apply",), "from . import data", ["data"]),
        (("apply",), "import ghn_pyg.models.ghn as ghn", ["models"]),
        (("apply",), "from ghn_pyg.nn.mlp import NodeMLP", ["nn"]),
        (("apply",), "import torch\nfrom torch import nn", []),
        (("cli",), "def main():\n    from .models.ghn import GHN", ["models"]),
    ],
)
def test_imports_are_found(module, source, parts):
    assert list(imported_parts(module, source)) == parts


@pytest.mark.parametrize("module", [module for module in MODULES if module != ("__init__",)], ids="/".join)
def test_imports_point_down(module):
    source = (ROOT.joinpath(*module)).with_suffix(".py").read_text(encoding="utf-8")
    own = module[0]
    assert own in FLOOR, f"say in FLOORS on which floor {own} stands"
    for part in imported_parts(module, source):
        if part == own:
            continue
        assert part in FLOOR, f"{'/'.join(module)} imports the whole package"
        assert own not in ALONE, f"{own}/ imports nothing of the package, but imports {part}"
        assert FLOOR[part] < FLOOR[own] or FLOOR[part] == FLOOR[own] <= 1, f"{own} imports {part}, which is not below"


def test_every_module_imports_by_itself():
    # In one new interpreter, which forgets the package before each.
    program = """
import importlib, sys
for name in sys.argv[1:]:
    for known in [known for known in sys.modules if known.split(".")[0] == "ghn_pyg"]:
        del sys.modules[known]
    importlib.import_module(name)
"""
    names = [".".join(("ghn_pyg", *module)).removesuffix(".__init__") for module in MODULES]
    subprocess.run([sys.executable, "-W", "ignore", "-c", program, *names], check=True, timeout=300)


def test_no_module_imports_an_extra():
    program = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
extras = {"h5py", "lightning_fabric", "matplotlib", "sklearn", "tensorboard", "timm", "torch_scatter", "torchmetrics"}
print(*extras.intersection(sys.modules))
"""
    names = [".".join(("ghn_pyg", *module)).removesuffix(".__init__") for module in MODULES]
    command = [sys.executable, "-W", "ignore", "-c", program, *names]
    assert subprocess.run(command, check=True, timeout=300, capture_output=True, text=True).stdout.split() == []
