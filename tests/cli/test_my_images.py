import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml
from PIL import Image

from ghn_pyg import from_pretrained
from ghn_pyg.training.logs import read_log
from tests.cli.outcomes import failed
from tests.training.tiny import assert_equal, start

GHN = "{hidden_channels: 8, max_channels: 8, max_kernel_size: 5, num_classes: 3, layers: 1, heads: 2}"
FIELDS = (f"ghn={GHN}", "start=null", "meta_batch=1", "image_size=8", "widths={widths: [8], hidden: [16]}",
          "curriculum=1.0")  # fmt: skip
TINY = (*(part for field in FIELDS for part in ("-s", field)), "--device", "cpu", "--processes", 1)


@pytest.fixture
def folder(tmp_path):
    random = np.random.default_rng(3)
    for name in ("ant", "bee", "cow"):
        (tmp_path / "insects" / name).mkdir(parents=True)
        for number in range(7):
            pixels = random.integers(0, 256, (19, 17, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "insects" / name / f"{number}.png")
    return tmp_path / "insects"


def test_a_run_on_a_folder_of_images(run, folder, tmp_path):
    command = ("train", "my-images", folder, "--out", tmp_path / "run", *TINY, "--minutes", 5)
    code, out, _ = run(*command, "--steps", 3, "--unseen", 1, "--networks", "test/3, test/5")
    assert code == 0
    assert out[:4] == [
        "my-images: insects", "images 18 for training, 3 for the test", "classes ant, bee, cow",
        "image size 8 pixels; for another one, give -s image_size=N",
    ]  # fmt: skip
    figures = [r"steps [\d,]+, each of 1 network on 16 images", r"time \d+\.\d min: ten measured steps say \d\.\d\d s",
               r"memory \d\.\d GB"]  # fmt: skip
    assert all(re.match(figure, line) for figure, line in zip(figures, out[6:9], strict=True))
    table = out[out.index("top-1 on 3 test images of insects, no network is trained") :]
    for name in ("1 unseen architecture", "test/3", "test/5"):
        assert any(re.fullmatch(rf"{name} \d+\.\d% \d+\.\d%", line) for line in table)
    recipe = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())
    assert (recipe["images"], recipe["image_size"], recipe["ghn"]["num_classes"]) == (str(folder), 8, 3)
    assert recipe["epochs"] > 3
    trained_for = from_pretrained(tmp_path / "run" / "ghn").config.trained_for
    assert trained_for.classes == ("ant", "bee", "cow")
    assert [*map(list, (trained_for.mean, trained_for.std))] == recipe["normalization"]
    # The recipe alone repeats the run.
    repeated = ("train", tmp_path / "run" / "recipe.yaml", "--out", tmp_path / "again", "--device", "cpu", "--steps", 3)
    assert run(*repeated)[0] == 0
    assert_equal(*(dict(from_pretrained(tmp_path / name / "ghn").state_dict()) for name in ("run", "again")))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_killed_run_resumes_exactly(run, folder, tmp_path):
    command = ("train", "my-images", folder, *TINY, "-s", "epochs=8", "-s", "checkpoint_every=3", "--unseen", 0)
    assert run(*command, "--out", tmp_path / "whole")[0] == 0
    killed = tmp_path / "killed"
    process = start(run, *command, "--out", killed)
    log = killed / "log.csv"
    while process.is_alive() and (not log.exists() or log.read_text().count("\n") <= 4):
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    code, out, _ = run(*command, "--out", killed)
    assert code == 0
    assert not any(line.startswith("time") for line in out)  # a run that goes on is not measured again
    assert_equal(*(dict(from_pretrained(path / "ghn").state_dict()) for path in (tmp_path / "whole", killed)))
    assert [row["step"] for row in read_log(killed / "log.csv")] == list(range(8))


def test_faulty_calls(run, folder, tmp_path):
    assert "expected the folder of images" in failed(run("train", "my-images"))
    assert "there is no folder" in failed(run("train", "my-images", tmp_path / "missing", "--out", tmp_path / "run"))
    assert "expected one CONFIG" in failed(run("train", "digits-small", folder, "--out", tmp_path / "run"))
    unknown = ("train", "my-images", folder, "--out", tmp_path / "run", *TINY, "--networks", "resnet19")
    assert "did you mean" in failed(run(*unknown))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_two_processes_do_what_one_does(run, folder, tmp_path):
    """They start each other: there is no torchrun."""
    logs = []
    for count in (1, 2):
        out = tmp_path / str(count)
        arguments = ["train", "my-images", str(folder), "--out", str(out), *map(str, TINY[:-1]), str(count)]
        more = ["-s", "meta_batch=3", "-s", "epochs=2", "--unseen", "0"]
        if count == 1:
            assert run(*arguments, *more)[0] == 0
        else:
            subprocess.run([sys.executable, "-m", "ghn_pyg.cli", *arguments, *more], check=True, timeout=300)
        logs.append(read_log(out / "log.csv"))
    assert [row["step"] for row in logs[1]] == [0, 1]
    assert [row["loss"] for row in logs[1]] == pytest.approx([row["loss"] for row in logs[0]], rel=1e-3)
