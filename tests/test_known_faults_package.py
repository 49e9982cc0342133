"""Faults of the published code that must not come back: in running code, in importing."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import ghn_pyg

# --- running code and importing --------------------------------------------------------------------------------------

PACKAGE = Path(ghn_pyg.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
RUNS_CODE = {
    "eval", "exec", "compile", "__import__", "pickle.load", "pickle.loads", "pickle.Unpickler", "_pickle.load",
    "_pickle.loads", "cPickle.load", "dill.load", "dill.loads", "cloudpickle.load", "cloudpickle.loads", "joblib.load",
    "shelve.open", "marshal.load", "marshal.loads", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load",
    "pandas.read_pickle", "runpy.run_path", "torch.hub.load",
}  # fmt: skip


def calls(tree):
    """Every call as (the full dotted name of what is called, the call)."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update({alias.asname or alias.name.split(".")[0]: alias.name if alias.asname else
                          alias.name.split(".")[0] for alias in node.names})  # fmt: skip
        elif isinstance(node, ast.ImportFrom):
            names.update({alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names})
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            try:
                first, *rest = ast.unparse(node.func).split(".")
            except ValueError:
                continue
            yield ".".join([names.get(first, first), *rest]), node


def offences(text):
    for name, call in calls(ast.parse(text)):
        unsafe = name in RUNS_CODE
        if name in ("torch.load", "numpy.load"):
            argument = {"torch.load": "weights_only", "numpy.load": "allow_pickle"}[name]
            values = [word.value for word in call.keywords if word.arg == argument]
            given = values[0].value if values and isinstance(values[0], ast.Constant) else None
            unsafe = given is not True if name == "torch.load" else bool(values) and given is not False
        if unsafe:
            yield name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("eval(x)", ["eval"]),
        ("import pickle as p\np.load(f)", ["pickle.load"]),
        ("from joblib import load as get\nget(f)", ["joblib.load"]),
        ("import torch\ntorch.load(f)", ["torch.load"]),
        ("import torch\ntorch.load(f, weights_only=False)", ["torch.load"]),
        ("import torch\ntorch.load(f, weights_only=True)", []),
        ("import numpy as np\nnp.load(f)", []),
        ("import numpy as np\nnp.load(f, allow_pickle=True)", ["numpy.load"]),
        ("model.eval()\nre.compile(x)", []),
    ],
)
def test_calls_that_run_code_are_found(text, expected):
    assert list(offences(text)) == expected


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_runs_code_from_data(path):
    assert list(offences(path.read_text(encoding="utf-8"))) == []


SETTINGS = """
import json, locale, logging, os, random, signal, sys, warnings
import numpy, torch, torch_geometric, torchvision, networkx, huggingface_hub, safetensors.torch

def settings():
    words = torch.get_rng_state().tolist(), random.getstate(), numpy.random.get_state()[1].tolist()
    return {
        "recursion limit": sys.getrecursionlimit(),
        "default type": str(torch.get_default_dtype()),
        "default device": str(torch.get_default_device()),
        "threads": [torch.get_num_threads(), torch.get_num_interop_threads()],
        "gradients": [torch.is_grad_enabled(), torch.is_anomaly_enabled()],
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "precision": torch.get_float32_matmul_precision(),
        "tf32": [torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32],
        "benchmark": torch.backends.cudnn.benchmark,
        "random": repr(words),
        "print options": repr(torch._tensor_str.PRINT_OPTS) + repr(numpy.get_printoptions()),
        "warnings": repr(warnings.filters),
        "handlers": repr(logging.getLogger().handlers), "level": logging.getLogger().level,
        "our handlers": repr(logging.getLogger("ghn_pyg").handlers),
        "environment": dict(os.environ), "path": sys.path, "folder": os.getcwd(),
        "hooks": [repr(sys.excepthook), repr(sys.displayhook)],
        "signal": repr(signal.getsignal(signal.SIGINT)),
        "locale": locale.setlocale(locale.LC_ALL),
        "meshes": repr(torch.nn.Module.__call__),
    }

before = settings()
names = {}
exec("from ghn_pyg import *", names)
import ghn_pyg.cli, ghn_pyg.zoo.torchvision_models
after = settings()
changed = [key for key in before if before[key] != after[key]]
print(json.dumps({"changed": changed, "names": sorted(set(names) - {"__builtins__"})}))
"""


def test_importing_changes_no_setting_prints_nothing_and_gives_the_public_names():
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SETTINGS], check=True, capture_output=True, text=True, timeout=300
    )
    assert result.stderr == ""
    found = json.loads(result.stdout)
    assert found["changed"] == []
    assert found["names"] == sorted(ghn_pyg.__all__)


def test_every_public_name_is_there():
    assert len(set(ghn_pyg.__all__)) == len(ghn_pyg.__all__)
    assert all(hasattr(ghn_pyg, name) for name in ghn_pyg.__all__)
    assert set(ghn_pyg.__all__) <= set(dir(ghn_pyg))
    with pytest.raises(AttributeError, match="nothing"):
        ghn_pyg.nothing  # noqa: B018
