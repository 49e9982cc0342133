import os
import pathlib
import re

import nbformat
import pytest
from jupyter_client import KernelManager
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell

from ghn_pyg.zoo.torchvision_models import classification_models

FOLDER = pathlib.Path(__file__).parents[1] / "notebooks"
NAMES = ["01_architecture_to_graph", "02_predict_parameters"]


def read(name):
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook):
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def kinds(cell):
    """What a cell shows, whatever the numbers in it."""
    return [(output.output_type, sorted(output.get("data", ()))) for output in cell.outputs]


def text(output):
    """What a reader can read of an output; pictures are base64, in which any letters may come up."""
    return "\n".join(
        [output.get("text", ""), *(output.get("data", {}).get(f"text/{kind}", "") for kind in ("plain", "markdown"))]
    )


def test_all_notebooks_are_tested():
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == NAMES


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    """A kernel for all notebooks, as each would import torch for seconds, and its folder."""
    manager, folder = KernelManager(), tmp_path_factory.mktemp("notebooks")
    manager.start_kernel(cwd=str(folder), env={**os.environ, "GHN_PYG_NOTEBOOK_SUBSET": "1"})
    yield manager, folder
    manager.shutdown_kernel(now=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_runs_on_a_few_networks_and_shows_what_is_committed(name, kernel, pytestconfig):
    manager, folder = kernel
    committed, executed = read(name), read(name)
    for cell in code_cells(executed):
        cell.outputs = []
    executed.cells.insert(0, new_code_cell("%reset -f"))  # names of other notebooks
    client = NotebookClient(executed, timeout=600, km=manager)
    client.execute()
    client.kc.stop_channels()
    del executed.cells[0]
    if pytestconfig.getoption("pythonwarnings"):  # -W default, for the oldest versions: warnings may show
        for cell in code_cells(executed):
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    for before, after in zip(code_cells(committed), code_cells(executed), strict=True):
        assert kinds(after) == kinds(before), after.source
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("name", NAMES)
def test_committed_outputs_are_complete(name):
    notebook = read(name)
    nbformat.validate(notebook)
    assert [cell.execution_count for cell in code_cells(notebook)] == list(range(1, len(code_cells(notebook)) + 1))
    shown = outputs(notebook)
    assert {output.output_type for output in shown} <= {"stream", "display_data", "execute_result"}
    assert [output for output in shown if output.get("name") == "stderr"] == []
    assert sum("image/png" in output.get("data", {}) for output in shown) >= 3
    tables = [output.data["text/markdown"] for output in shown if "text/markdown" in output.get("data", {})]
    rows = set(re.findall(r"^\| (\w+) \|", tables[-1], flags=re.MULTILINE))
    assert set(classification_models()) <= rows, "run it without GHN_PYG_NOTEBOOK_SUBSET before it is committed"


@pytest.mark.parametrize("name", NAMES)
def test_committed_notebooks_are_tidy(name):
    notebook = read(name)
    assert (FOLDER / f"{name}.ipynb").stat().st_size < 1_000_000
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    assert notebook.metadata == {"kernelspec": kernel, "language_info": {"name": "python"}}
    assert all(cell.metadata == {} for cell in notebook.cells)
    for output in outputs(notebook):
        assert not re.search(r"[/\\](home|root|tmp|Users|usr|work|site-packages)[/\\]", text(output))
