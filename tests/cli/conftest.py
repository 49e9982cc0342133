import sys

import pytest

from ghn_pyg import cli


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs a command in this process: its exit code, standard output (spaces joined) and standard error."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["ghn-pyg", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        return stop.value.code or 0, [" ".join(line.split()) for line in out.splitlines()], err

    return call
