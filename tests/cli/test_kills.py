"""Commands that are killed at any moment lose nothing, and the next run leaves nothing unfinished."""

import os
import random
import re
import shutil
import sys

import pytest
import torch

from ghn_pyg import cli
from ghn_pyg.families.deepnets import PublishedDeepNets
from ghn_pyg.models.checkpoints import read_checkpoint
from ghn_pyg.training.checkpoints import checkpoint_paths
from ghn_pyg.training.checkpoints import read_checkpoint as read_state
from ghn_pyg.utils.nested_tensors import map_tensors
from tests.cli.conftest import save_ghn
from tests.killed import count_steps, killed_at, killed_in_a_write

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="the command is another process"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]
ONE = [1, pytest.param(40, marks=pytest.mark.exhaustive)]


def command(*arguments):
    """A command, as a function for another process; an earlier run in this one has imported what it needs."""

    def act():
        torch.set_num_threads(1)
        sys.argv = ["ghn-pyg", *map(str, arguments)]
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - the process ends soon
        try:
            cli.main()
        except SystemExit as stop:
            if stop.code:
                raise

    return act


def files(folder):
    """All files but the logs of TensorBoard, of which each run has its own."""
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if "tensorboard" not in path.parts and path.name != ".lock"
    )


def check_kills(kills, act, folder, read, states=2):
    """Kills an action in a folder at its calls of the system, and in writes.

    Each time the folder then has what it had before or, for two ``states``, what it has after the action. The next run
    ends as one that was never killed.
    """
    before = folder.with_name("before")
    shutil.copytree(folder, before)
    steps, draw = count_steps(act), random.Random(kills)
    expected = read(folder)
    largest = max(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    old, names = read(before), files(folder)
    assert old != expected
    for number in range(kills):
        shutil.rmtree(folder)
        shutil.copytree(before, folder)
        if number % 3 == 1:
            kill, place = killed_in_a_write, draw.randrange(largest)
        else:  # most files are replaced by the last calls
            kill, place = killed_at, steps - 1 - draw.randrange(steps if number % 3 else min(steps, 25))
        assert kill(place, act), (kill, place)
        found = read(folder)
        assert states > 2 or found in (old, expected), (kill, place)
        assert not killed_at(-1, act)
        assert read(folder) == expected, (kill, place)
        assert files(folder) == names, (kill, place)


def plain(value):
    return repr(map_tensors(torch.Tensor.tolist, value))


def checkpoint(folder):
    return plain(read_checkpoint(folder))


@pytest.mark.parametrize("kills", ONE)
def test_convert(kills, tmp_path, ghn):
    save_ghn(tmp_path / "out", num_classes=10)
    check_kills(kills, command("convert", ghn, "--out", tmp_path / "out", "--half"), tmp_path / "out", checkpoint)


def results(folder):
    return re.sub(r'"seconds": [-+.\de]+', "", (folder / "out.json").read_text())


@pytest.mark.parametrize(
    ("name", "kills"),
    [("eval", 1), *(pytest.param(name, 40, marks=pytest.mark.exhaustive) for name in ("eval", "rank"))],
)
def test_results(name, kills, tmp_path, digits_ghn, run):
    options = ("--width", 8, "--image-size", 8, "--split", "val", "--out", tmp_path / "out" / "out.json")
    (tmp_path / "out").mkdir()
    assert run(name, digits_ghn, *options, "--count", 2)[0] == 0
    check_kills(kills, command(name, digits_ghn, *options, "--count", 3), tmp_path / "out", results)


def architectures(folder):
    with PublishedDeepNets(folder / "own.hdf5", "val") as split:
        return [(graph.architecture.key, graph.edge_index.tolist()) for graph in split]


@pytest.mark.parametrize("kills", ONE)
def test_export(kills, tmp_path, run):
    pytest.importorskip("h5py")
    (tmp_path / "out").mkdir()
    path = tmp_path / "out" / "own.hdf5"
    options = ("deepnets", "export", "val", "--out", path, "--count", 2)
    assert run(*options)[0] == 0
    check_kills(kills, command(*options, "--start", 3), path.parent, architectures)


def run_of(folder):
    """All that a run leaves, but for its times."""
    states = {path.name: plain(read_state(path)) for path in checkpoint_paths(folder / "checkpoints")}
    ghns = [checkpoint(folder / name) for name in ("best", "ghn") if (folder / name).is_dir()]
    log = [line.split(",") for line in (folder / "log.csv").read_text().splitlines()]
    return states, ghns, [row[:-3] for row in log]


@pytest.mark.parametrize("kills", ONE)
def test_train(kills, tmp_path, recipe, run):
    options = ("--out", tmp_path / "out", "-s", "checkpoint_every=2", "-s", "keep=2", "-s", "held_out=0.0")
    assert run("train", recipe, *options, "--steps", 3)[0] == 0
    check_kills(kills, command("train", recipe, *options, "--steps", 7), tmp_path / "out", run_of, states=9)
