"""Hostile files end as one CheckpointError each: nothing runs, nothing crashes, and no memory or time is lost."""

import json
import os
import sys
from pathlib import Path

import pytest

from tests.models.checkpoints.hostile_files import GOOD, hostile
from tests.models.checkpoints.read_hostile_files import read_all

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is measured by Linux"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]

_SLACK = 1 << 26
"""Bytes that reading takes whatever is read, such as for the modules of PyTorch that are imported meanwhile."""


@pytest.fixture(scope="module", params=[25, pytest.param(5, marks=pytest.mark.exhaustive)])
def step(request):
    """Percent between the places where a hostile file is cut off."""
    return request.param


@pytest.fixture(scope="module")
def changes(step):
    """How many times a byte of each good file is changed."""
    return 500 // step


@pytest.fixture(scope="module")
def outcomes(step, changes, tmp_path_factory):
    """Loads all files in a new process, and returns what came of each version of each file."""
    folder = tmp_path_factory.mktemp("files")
    files = hostile(str(folder / "marker"))
    child = os.fork()
    if child == 0:
        try:
            read_all(GOOD, files, folder, step, changes)
        finally:
            os._exit(sys.exc_info()[0] is not None)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    lines = [json.loads(line) for line in (folder / "lines").read_text().splitlines()]
    assert code == 0, (code, lines[-1])
    assert not (folder / "marker").exists()
    return [{**what, **result} for what, result in zip(lines[::2], lines[1::2], strict=True)]


def test_good_files_are_read(outcomes):
    errors = {each["file"]: each["error"] for each in outcomes if each["version"] == "whole" and each["file"] in GOOD}
    assert errors == dict.fromkeys(GOOD, "")


def test_hostile_files_are_refused(outcomes, step):
    others = [each for each in outcomes if each["file"] not in GOOD]
    assert len(others) >= (1 + 100 // step) * 60
    assert [each for each in others if each["error"] != "CheckpointError"] == []


def test_changed_bytes_end_in_the_same_error(outcomes, changes):
    changed = [each for each in outcomes if each["version"].startswith("change")]
    assert len(changed) == changes * len(GOOD)
    # Some formats have no checksum of their numbers.
    assert [each for each in changed if each["error"] not in ("", "CheckpointError")] == []


def test_no_file_takes_much_memory_or_time(outcomes):
    assert [each for each in outcomes if each["bytes"] > 2 * each["size"] + _SLACK or each["seconds"] > 5] == []


def test_messages_are_short_and_obeyed_by_no_terminal(outcomes):
    assert [each for each in outcomes if not each["message"].isprintable() or len(each["message"]) > 2500] == []
