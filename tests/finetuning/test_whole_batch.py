"""Two processes, each with half of every batch, do what one does."""

import pytest
import timm
import torch
from torch import nn

from ghn_pyg.evaluation import measure
from ghn_pyg.evaluation.accuracy import Batches
from ghn_pyg.finetuning import FitConfig, fit
from ghn_pyg.training.checkpoints import checkpoint_paths
from ghn_pyg.training.fabric import make_fabric
from ghn_pyg.training.logs import read_log
from tests.training.tiny import digits, free_port, rank_environment, start

pytestmark = [
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
    pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs gloo"),
]

EVERYTHING = {"mixup": 0.3, "cutmix": 1.0, "randaugment": 9, "cutout": 3, "label_smoothing": 0.1, "drop_path": 0.3}


class Residual(nn.Module):
    """A block with a batch norm, dropout and drop path, and a layer that only some batches use."""

    def __init__(self, affine):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(5, 5, 3, padding=1), nn.BatchNorm2d(5, affine=affine)
        self.drop_path1, self.dropout, self.unused = nn.Identity(), nn.Dropout2d(0.2), nn.Linear(3, 3)

    def forward(self, x):
        return x + self.drop_path1(self.dropout(self.norm(self.conv(x)).relu()))


def plain():
    return nn.Sequential(
        nn.Conv2d(3, 5, 3), Residual(True), Residual(False), nn.Flatten(), nn.Dropout(0.3), nn.Linear(180, 11),
        nn.BatchNorm1d(11, momentum=None), nn.Linear(11, 10),
    )  # fmt: skip


NETWORKS = {
    "plain": (plain, EVERYTHING),
    "timm": (lambda: timm.create_model("test_resnet", num_classes=10), {"drop_path": 0.5}),
}  # fmt: skip


class Stopped(Exception):
    """Stands for a kill."""


def trained(folder, name, stop=None):
    """Trains in double precision, so that what differs is no rounding."""
    torch.set_num_threads(1)
    torch.manual_seed(3)
    make, changes = NETWORKS[name]
    network = make().double()
    first = network.register_forward_pre_hook(lambda _, inputs: tuple(image.double() for image in inputs))

    def on_step(step, loss):
        if step == stop:
            raise Stopped

    config = FitConfig(**{"epochs": 3, "batch_size": 18, "seed": 5, "patience": 3, **changes})
    images, fabric = digits(37), make_fabric(device="cpu")

    def accuracy(epoch):
        return measure(network.eval(), Batches(images.test, size=16), fabric=fabric).top1, float("nan")

    fit(network, images, config, fabric=fabric, folder=folder, measure=accuracy, on_step=on_step)
    first.remove()
    return dict(network.state_dict())


def train_all(folder):
    for name in NETWORKS:
        torch.save(trained(folder / name, name), folder / f"{name}.{torch.distributed.get_rank()}.pt")


def in_two_processes(function, *arguments):
    port = free_port()
    processes = [start(function, *arguments, **rank_environment(rank, 2, port)) for rank in range(2)]
    for process in processes:
        process.join(60)
    return [process.exitcode for process in processes]


def test_two_processes_do_what_one_does(tmp_path):
    """One of the runs is begun by one process; two go on with it."""
    expected = {name: trained(tmp_path / f"{name}.one", name) for name in NETWORKS}
    with pytest.raises(Stopped):
        trained(tmp_path / "plain", "plain", stop=3)
    assert in_two_processes(train_all, tmp_path) == [0, 0]
    for name in NETWORKS:
        states = [torch.load(tmp_path / f"{name}.{rank}.pt") for rank in range(2)]
        torch.testing.assert_close(states[1], states[0], rtol=0, atol=0)
        torch.testing.assert_close(states[0], expected[name], rtol=1e-5, atol=1e-6)
        logs = [read_log(tmp_path / folder / "log.csv") for folder in (name, f"{name}.one")]
        losses = [[row["loss"] for row in log[1:]] for log in logs]
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)
        assert [row["val_top1"] for row in logs[0]] == [row["val_top1"] for row in logs[1]]
        paths = checkpoint_paths(tmp_path / name / "checkpoints")
        assert [path.name for path in paths] == ["step-000000004.pt", "step-000000006.pt"]
