"""Two processes as if on two machines: both have the local rank 0."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml

from ghn_pyg.training import Run, TrainingError
from ghn_pyg.training.checkpoints import checkpoint_paths, read_checkpoint
from ghn_pyg.training.fabric import make_fabric
from ghn_pyg.training.logs import read_log
from tests.training.tiny import config, digits, free_port, losses, rank_environment, run, start

pytestmark = [
    pytest.mark.usefixtures("small_architectures"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
    pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs gloo"),
]


def on_two_machines(function, *arguments):
    """Runs a function in two processes; returns their exit codes."""
    port = free_port()
    processes = []
    for rank in range(2):
        environment = rank_environment(rank, 2, port, LOCAL_RANK=0, LOCAL_WORLD_SIZE=1, GROUP_RANK=rank)
        processes.append(start(function, *arguments, **environment))
    for process in processes:
        process.join(120)
    return [process.exitcode for process in processes]


def write_batches(folder):
    """Writes which architectures and images a process gets in the first two steps."""
    one = Run(config(meta_batch=3), folder / "run", make_fabric(device="cpu"), digits())
    torch.save(batches(one), folder / f"{one.fabric.global_rank}.pt")


def batches(one):
    architectures = [one.architectures_from(0).architectures(step) for step in range(2)]
    keys = [[architecture.key.hex() for architecture in step] for step in architectures]
    return keys, [one.images_from(0).image_numbers(step) for step in range(2)]


def test_13_architectures_and_images_depend_on_the_global_rank(tmp_path):
    assert on_two_machines(write_batches, tmp_path) == [0, 0]
    (keys, numbers), (other_keys, other_numbers) = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    all_keys, all_numbers = batches(Run(config(meta_batch=3), tmp_path / "run", make_fabric(device="cpu"), digits()))
    for step in range(2):
        assert min(len(keys[step]), len(other_keys[step])) == 1
        assert sorted(keys[step] + other_keys[step]) == sorted(all_keys[step])
        assert numbers[step] + other_numbers[step] == all_numbers[step]


def resume_alone(folder):
    """The second process has a folder of its own, without a run."""
    folder = folder / ("run" if os.environ["RANK"] == "0" else "other")
    with pytest.raises(TrainingError, match=r"different checkpoints in .*, of the steps 2, -1 \(-1 is none\)"):
        run(folder, 4, {"meta_batch": 3})


def test_machines_that_do_not_share_the_folder(tmp_path):
    run(tmp_path / "run", 2, {"meta_batch": 3})
    assert on_two_machines(resume_alone, tmp_path) == [0, 0]
    assert not (tmp_path / "other").exists()
    assert len(losses(tmp_path / "run")) == 2


def download(folder):
    """The second process finds what the first has downloaded."""
    from ghn_pyg.training import image_batches as module

    def load(*_, **options):
        if os.environ["RANK"] == "0":
            time.sleep(1)
            (folder / "data").write_text("all of it")
        assert (folder / "data").read_text() == "all of it"
        return digits()

    module.load_images = load
    run(folder / "run", 1, {"download": True}, images=None)


def test_one_process_downloads(tmp_path):
    assert on_two_machines(download, tmp_path) == [0, 0]


def spoiled_run(folder, steps, changes):
    """The second process has a gradient that is not finite in step 3."""
    from ghn_pyg.training import run as module

    original = module.meta_gradient

    def spoiled(ghn, meta_batch, *batch, **options):
        share = original(ghn, meta_batch, *batch, **options)
        if meta_batch.step == 3 and torch.distributed.get_rank() == 1:
            next(ghn.parameters()).grad.fill_(torch.nan)
        return share

    module.meta_gradient = spoiled
    run(folder, steps, changes)


def test_two_processes_do_what_one_does(tmp_path):
    changes = {"meta_batch": 3, "penalty": 0.01}
    run(tmp_path / "one", 6, changes)
    assert on_two_machines(run, tmp_path / "two", 4, changes) == [0, 0]
    assert on_two_machines(run, tmp_path / "two", 6, changes) == [0, 0]
    one, two = (read_log(tmp_path / name / "log.csv") for name in ("one", "two"))
    assert [row["step"] for row in two] == list(range(6))
    for name, tolerance in (("loss", 1e-6), ("top1", 1e-6), ("norm", 5e-3)):  # untrained networks amplify rounding
        assert two[0][name] == pytest.approx(one[0][name], rel=tolerance)
    # Adam turns what rounding leaves of a gradient of 0 into whole steps.
    assert [row["loss"] for row in two] == pytest.approx([row["loss"] for row in one], rel=1e-3)


def test_a_bad_step_of_one_is_skipped_by_all(tmp_path):
    assert on_two_machines(spoiled_run, tmp_path, 5, {}) == [0, 0]
    assert [row["skipped"] for row in read_log(tmp_path / "log.csv")] == [0, 0, 0, 1, 0]
    state = read_checkpoint(checkpoint_paths(tmp_path / "checkpoints")[-1])["ghn"]
    assert all(tensor.isfinite().all() for tensor in state.values())


def killed_run(folder, steps):
    """The second process is killed in step 4; the first writes its error to a file."""
    from ghn_pyg.training import run as module

    original = module.meta_gradient

    def killed(ghn, meta_batch, *batch, **options):
        if meta_batch.step == 4 and torch.distributed.get_rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(ghn, meta_batch, *batch, **options)

    module.meta_gradient = killed
    try:
        run(folder, steps)
    except TrainingError as error:
        folder.with_suffix(".txt").write_text(str(error))
        sys.exit(2)


def test_a_killed_process_ends_the_run_which_can_be_resumed(tmp_path):
    folder = tmp_path / "run"
    assert on_two_machines(killed_run, folder, 6) == [2, -signal.SIGKILL]
    message = (tmp_path / "run.txt").read_text()
    assert message.startswith("another process of the run ended or cannot be reached (")
    assert message.endswith("start the same command again to resume from the last checkpoint")
    assert checkpoint_paths(folder / "checkpoints")[-1].name == "step-000000003.pt"
    assert on_two_machines(run, folder, 6) == [0, 0]
    assert [row["step"] for row in read_log(folder / "log.csv")] == list(range(6))


def test_a_run_resumes_with_another_number_of_processes(tmp_path):
    run(tmp_path / "whole", 6)
    folder = tmp_path / "parts"
    run(folder, 2)
    assert on_two_machines(run, folder, 4) == [0, 0]
    run(folder, 6)
    whole, parts = (read_log(tmp_path / name / "log.csv") for name in ("whole", "parts"))
    assert [row["step"] for row in parts] == list(range(6))
    assert [row["loss"] for row in parts[:2]] == [row["loss"] for row in whole[:2]]
    # Two processes add up in another order, and Adam turns what rounding leaves of a gradient of 0 into whole steps.
    assert [row["loss"] for row in parts] == pytest.approx([row["loss"] for row in whole], rel=1e-3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_two_processes_on_a_gpu_do_what_one_does(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(config(meta_batch=3).to_dict()))
    logs = []
    for count in (1, 2):
        folder = tmp_path / str(count)
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count),
                   "-m", "ghn_pyg.cli", "train", str(recipe), "--out", str(folder), "--device", "cuda:0",
                   "--steps", "3"]  # fmt: skip
        subprocess.run(command, check=True)
        logs.append(read_log(folder / "log.csv"))
    one, two = ([row["loss"] for row in log] for log in logs)
    assert two == pytest.approx(one, rel=1e-2)
