"""Writers that are killed at random moments lose nothing, and the next run leaves nothing unfinished."""

import os
import random
import signal
import time

import pytest
import torch

from ghn_pyg import GHN, GHNConfig, from_module, from_pretrained, predict_shards
from ghn_pyg.models.checkpoints import SavedTensors, read_checkpoint
from tests.models.checkpoints.checkpoint_files import same
from tests.models.ghns import X, dense

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the writer is another process")

CONFIG = GHNConfig(hidden_channels=8, max_channels=8, layers=1, heads=2)


def make(seed):
    torch.manual_seed(seed)
    return GHN(CONFIG if seed == 3 else CONFIG.replace(weight_norm=False)).eval()


def save(seed, folder):
    make(seed).save_pretrained(folder)


def convert(seed, folder):
    from_pretrained(folder.parent / f"{seed}").half().save_pretrained(folder)


def shard(seed, folder):
    predict_shards(make(seed), from_module(dense(), X), folder, shard_size=100, seed=0)


def checkpoint(folder):
    config, state = read_checkpoint(folder)
    return config, {name: tensor.clone() for name, tensor in state.items()}


def prediction(folder):
    return "shards", {name: tensor.clone() for tensors in SavedTensors(folder) for name, tensor in tensors.items()}


def killed_after(seconds, action):
    """Runs an action in a new process, which is killed after a time; whether it was not done by then."""
    child = os.fork()
    if child == 0:
        try:
            action()
        except BaseException:  # noqa: BLE001 - the tests of the parent must not run on here
            os._exit(1)
        os._exit(0)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL)
    return code != 0


@pytest.mark.parametrize("kills", [3, pytest.param(70, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize(("write", "read"), [(save, checkpoint), (convert, checkpoint), (shard, prediction)])
def test_random_kills_lose_nothing(write, read, kills, tmp_path):
    for seed in (3, 5):
        save(seed, tmp_path / f"{seed}")
    expected = []
    folder = tmp_path / "out"
    for seed in (5, 3):
        start = time.perf_counter()
        write(seed, folder)
        longest = time.perf_counter() - start
        expected.append(read(folder))
        files = sorted(os.listdir(folder))
    draw, killed = random.Random(kills), 0
    for _ in range(20 * kills):
        killed += killed_after(draw.uniform(0, 2 * longest), lambda: write(5, folder))
        config, tensors = read(folder)
        assert any(config == each and same(tensors, others) for each, others in expected)
        write(3, folder)
        assert same(read(folder)[1], expected[1][1])
        assert sorted(os.listdir(folder)) == files
        if killed == kills:
            break
    assert killed == kills
