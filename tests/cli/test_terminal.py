"""What is printed never decides what a command returns."""

import os
import subprocess
import sys

import pytest

PROGRAM = r"""
import sys
from ghn_pyg import cli
from ghn_pyg.cli.files import saved_before
from ghn_pyg.cli.terminal import print_rows

def printed():
    with saved_before(cli.Path(sys.argv[1]), lambda path: path.write_text("saved")):
        for number in range(2000):
            print_rows(f"Kendall's \N{GREEK SMALL LETTER TAU} {number}", [("a", "b")])
    sys.exit(3)

cli.app = lambda **_: printed()
cli.Path = __import__("pathlib").Path
cli.main()
"""


def launch(path, **options):
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )


def test_a_closed_pipe_loses_no_result(tmp_path):
    with launch(tmp_path / "out") as process:
        process.stdout.close()
        assert (process.stderr.read(), process.wait()) == (b"", 3)
    assert (tmp_path / "out").read_text() == "saved"


@pytest.mark.parametrize("environment", [{"PYTHONIOENCODING": "latin-1"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}])
def test_letters_that_a_terminal_does_not_have_are_replaced(environment, tmp_path):
    with launch(tmp_path / "out", env={**os.environ, **environment}) as process:
        output, errors = process.communicate()
    assert (errors, process.returncode) == (b"", 3)
    assert b"Kendall's" in output


@pytest.mark.skipif(os.name != "posix", reason="a shell closes the output")
def test_there_may_be_no_output(tmp_path):
    command = ["sh", "-c", 'exec "$0" "$@" >&-', sys.executable, "-W", "ignore", "-c", PROGRAM, str(tmp_path / "out")]
    process = subprocess.run(command, stderr=subprocess.PIPE, check=False)
    assert (process.stderr, process.returncode) == (b"", 3)
    assert (tmp_path / "out").read_text() == "saved"
