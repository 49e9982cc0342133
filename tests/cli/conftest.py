import logging
import sys

import pytest
import torch

from ghn_pyg import GHN, GHNConfig, cli

logging.getLogger("lightning_fabric").setLevel(logging.ERROR)


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


def save_ghn(folder, **options):
    torch.manual_seed(3)
    GHN(GHNConfig(hidden_channels=8, max_channels=8, layers=1, heads=2, **options)).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def ghn(tmp_path_factory):
    """The folder of an untrained GHN for 1,000 classes."""
    return save_ghn(tmp_path_factory.mktemp("ghn"))


@pytest.fixture(scope="session")
def digits_ghn(tmp_path_factory):
    """The folder of an untrained GHN for ten classes."""
    return save_ghn(tmp_path_factory.mktemp("ghn"), max_kernel_size=5, num_classes=10)


@pytest.fixture
def recipe(tmp_path):
    """A recipe for meta-training that takes moments."""
    ghn = "{hidden_channels: 8, max_channels: 8, max_kernel_size: 5, num_classes: 10, layers: 1, heads: 2}"
    sizes = "image_size: 8\nmeta_batch: 1\nbatch_size: 16\nepochs: 10\nwarmup_epochs: 0\ncurriculum: 1.0"
    path = tmp_path / "tiny.yaml"
    path.write_text(f"ghn: {ghn}\nwidths: {{widths: [8], hidden: [16]}}\n{sizes}\n")
    return path
