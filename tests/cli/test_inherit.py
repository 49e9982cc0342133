"""``ghn-pyg inherit``."""

import pytest
import torch
from safetensors.torch import load_file, save_model

from ghn_pyg.data import load_images
from ghn_pyg.evaluation.subjects import named_subject
from ghn_pyg.finetuning.saved_network import NetworkInfo, read_info, save_network
from tests.cli.outcomes import failed


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A file of an untrained network for digits."""
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    network = named_subject("shufflenet_v2_x0_5", 10, 16).build()
    save_network(network, path, NetworkInfo.of_images("shufflenet_v2_x0_5", "digits", load_images("digits")))
    return path


def test_a_network_inherits_from_a_saved_one(run, teacher, tmp_path):
    path = tmp_path / "student.safetensors"
    code, out, err = run("inherit", "shufflenet_v2_x0_5", "--from", teacher, "--out", path)
    assert (code, err) == (0, "")
    assert out[0] == f"shufflenet_v2_x0_5 from {teacher}"
    assert out[1:3] == ["network 352,042 parameters", "inherited 338 tensors"]
    accuracies = [line.split()[1] for line in out[3:5]]
    assert accuracies[0] == accuracies[1]
    info = read_info(path)
    assert (info.architecture, info.image_size, info.num_classes) == ("shufflenet_v2_x0_5", 16, 10)
    before, after = load_file(teacher), load_file(path)
    assert torch.equal(after["stage3.2.branch2.0.weight"], before["stage3.2.branch2.0.weight"])


def test_weights_of_another_tool_need_the_name_of_their_network(run, tmp_path):
    weights, path = tmp_path / "weights.safetensors", tmp_path / "student.safetensors"
    save_model(named_subject("squeezenet1_1", 1000, 224).build(), str(weights))
    assert "--teacher" in failed(run("inherit", "squeezenet1_1", "--from", weights, "--out", path))
    code, out, err = run(
        "inherit", "squeezenet1_1", "--from", weights, "--teacher", "squeezenet1_1", "--num-classes", 7, "--out", path
    )
    assert (code, err) == (0, "")
    assert out[3] == "not inherited classifier.1.weight, classifier.1.bias"
    assert load_file(path)["classifier.1.weight"].shape[0] == 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet19", "--from", "{teacher}"], "did you mean"),
        (["resnet18", "--from", "nosuch"], "nosuch"),
        (["resnet18", "--from", "{teacher}", "--teacher", "resnet34"], "holds no resnet34"),
    ],
)
def test_bad_input_is_one_line(run, teacher, tmp_path, arguments, message):
    path = tmp_path / "student.safetensors"
    arguments = [argument.format(teacher=teacher) for argument in arguments]
    assert message in failed(run("inherit", *arguments, "--out", path))
    assert not path.exists()
