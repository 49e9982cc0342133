"""Runs of a few steps that take a fraction of a second each."""

import logging
import multiprocessing
import os
import socket

import torch

from ghn_pyg import GHNConfig
from ghn_pyg.data import Images, TensorImages, load_images
from ghn_pyg.families.deepnets.width_sampling import Bound, WidthRule
from ghn_pyg.training import TrainConfig, train
from ghn_pyg.training.fabric import make_fabric
from ghn_pyg.training.logs import read_log

logging.getLogger("lightning_fabric").setLevel(logging.ERROR)

GHN3 = GHNConfig(hidden_channels=8, max_channels=8, max_kernel_size=5, num_classes=10, layers=1, heads=2)
CONFIG = TrainConfig(
    ghn=GHN3, image_size=8, held_out=0.0, meta_batch=2, batch_size=16, epochs=10, warmup_epochs=0, seed=3,
    checkpoint_every=3, widths=WidthRule(widths=(8,), hidden=(16,), bounds=(Bound(10**9, 99, 1),)),
)  # fmt: skip


def config(**changes):
    return CONFIG.replace(**changes)


def ghn_config(**changes):
    return GHNConfig.from_dict({**GHN3.to_dict(), **changes})


def digits(count=55):
    """A few digits of 8×8 pixels."""
    whole = load_images("digits", image_size=8)
    pixels, labels = whole.train.pixels[:count], whole.train.labels[:count].clone()
    few = TensorImages(pixels, labels, whole.train.mean, whole.train.std)
    return Images("digits", few, whole.test, 10, 8, whole.mean, whole.std)


def run(folder, steps, changes=None, **options):
    """Trains on one thread; returns the weights."""
    torch.set_num_threads(1)
    options = {"fabric": make_fabric(device="cpu"), "images": digits(), **options}
    return dict(train(config(**(changes or {})), folder, steps=steps, **options).state_dict())


def assert_equal(first, second):
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def losses(folder):
    return [row["loss"] for row in read_log(folder / "log.csv")]


def start(function, *arguments, **environment):
    """Starts a function in a new process, forked as importing takes seconds."""

    def body():
        os.environ.update(environment)
        torch.set_num_threads(1)
        function(*arguments)

    process = multiprocessing.get_context("fork").Process(target=body)
    process.start()
    return process


def rank_environment(rank, world_size, port, **changes):
    """The environment of a process that torchrun starts."""
    values = {
        "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size, "LOCAL_WORLD_SIZE": world_size, "GROUP_RANK": 0,
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "tests",
    }  # fmt: skip
    return {name: str(value) for name, value in {**values, **changes}.items()}


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]
