import subprocess
import sys

import typer

import ghn_pyg
from ghn_pyg import cli


def test_version(run):
    assert run("--version") == (0, [f"ghn-pyg {ghn_pyg.__version__}"], "")


def test_help_names_every_command(run):
    commands = "predict graph coverage init convert models train eval rank finetune demo bench deepnets images"
    assert set(commands.split()) <= set(" ".join(run("--help")[1]).split())
    assert {"sample", "stats", "export", "show"} <= set(" ".join(run("deepnets", "--help")[1]).split())


def test_options_are_named_as_the_readme_has_them():
    """Some versions of typer name an option by its metavar, ``--DEVICE``."""
    groups = [typer.main.get_command(cli.app)]
    for group in groups:
        groups += getattr(group, "commands", {}).values()
        assert all(option == option.lower() for parameter in group.params for option in parameter.opts)
    assert "--device" in {option for group in groups for parameter in group.params for option in parameter.opts}


def test_output_is_plain_in_a_pipe_without_warnings():
    command = [sys.executable, "-m", "ghn_pyg.cli", "graph", "resnet18"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.startswith("resnet18\n")
    assert "\x1b" not in done.stdout


EARLY = [
    "predict --help",
    "predict resnet18 --ghn x --out x.pt",
    "graph resnet18 --out x.png",
    "graph tim/resnet18",
    "coverage resnet18 hf/nobody/nothing",
    "init ghn3 --out x",
    "deepnets show val 0 --out x.png",
]


def test_help_and_typing_errors_do_not_wait_for_torch():
    script = f"""
import sys
from ghn_pyg import cli
for arguments in {EARLY}:
    sys.argv = ["ghn-pyg", *arguments.split()]
    try:
        cli.main()
    except SystemExit as stop:
        assert (stop.code or 0) == (0 if "--help" in arguments else 2), arguments
    slow = {{"torch", "torch_geometric", "torchvision", "numpy"}} & set(sys.modules)
    assert not slow, (arguments, slow)
"""
    subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
