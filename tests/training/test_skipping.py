"""Steps without a finite loss or gradient, also in half precision."""

import time

import pytest
import torch
from ghn_pyg.training.run_folder import TrainingError

from ghn_pyg.training import run as module
from ghn_pyg.training.checkpoints import checkpoint_paths, read_training_checkpoint
from ghn_pyg.training.fabric import half_precision, make_fabric
from ghn_pyg.training.logs import read_log
from ghn_pyg.training.run import Run
from tests.training.tiny import config, digits, losses, run, same

# --- steps whose loss is not finite ----------------------------------------------------------------------------------


def spoil(monkeypatch, bad):
    """Losses of the steps for which ``bad`` holds are NaN."""
    original = module.meta_gradient

    def spoiled(ghn, meta_batch, *batch, **options):
        share = original(ghn, meta_batch, *batch, **options)
        if bad(meta_batch.step):
            next(ghn.parameters()).grad.fill_(torch.nan)
            share[:2] = torch.nan
        return share

    monkeypatch.setattr(module, "meta_gradient", spoiled)


def test_such_steps_are_left_out_counted_and_logged(tmp_path, monkeypatch, caplog):
    run(tmp_path / "clean", 2)
    spoil(monkeypatch, lambda step: step in (2, 4))
    run(tmp_path / "spoiled", 2)
    before = read_training_checkpoint(tmp_path / "spoiled" / "checkpoints" / "step-000000002.pt")
    weights = run(tmp_path / "spoiled", 3)
    same(dict(before["ghn"]), dict(weights))
    run(tmp_path / "spoiled", 6)
    rows = read_log(tmp_path / "spoiled" / "log.csv")
    assert [row["skipped"] for row in rows] == [0, 0, 1, 0, 1, 0]
    state = read_training_checkpoint(tmp_path / "spoiled" / "checkpoints" / "step-000000006.pt")
    assert (state["progress"]["skipped"], state["progress"]["skipped_in_a_row"]) == (2, 0)
    assert all(tensor.isfinite().all() for tensor in state["ghn"].values())
    # Step 2 was taken again: a run that is stopped right after a bad step goes on from the checkpoint before it.
    assert [record.message for record in caplog.records if "skipped" in record.message] == [
        f"step {step} skipped: its loss or gradient is not finite" for step in (2, 2, 4)
    ]


def test_a_run_of_them_rolls_back(tmp_path, monkeypatch, caplog):
    spoil(monkeypatch, lambda step: 4 <= step < 11)
    run(tmp_path, 12, {"max_skipped": 3})
    messages = [record.message for record in caplog.records if "rolled back" in record.message]
    assert messages == [
        "rolled back to step-000000003.pt, going on with step 7",
        "rolled back to step-000000000.pt, going on with step 10",
    ]
    progress = read_training_checkpoint(checkpoint_paths(tmp_path / "checkpoints")[-1])["progress"]
    assert (progress["skipped"], progress["rollbacks"], progress["rollbacks_in_a_row"]) == (7, 2, 0)


def test_stopping_amid_them_changes_nothing(tmp_path, monkeypatch, caplog):
    """No checkpoint is lost to weights that may be to blame."""
    spoil(monkeypatch, lambda step: 4 <= step < 13)
    for folder, stops in ((tmp_path / "whole", (14,)), (tmp_path / "stopped", (5, 8, 11, 14))):
        caplog.clear()
        for stop in stops:
            run(folder, stop, {"max_skipped": 4, "keep": 2})
        assert "rolled back to step-000000000.pt, going on with step 12" in caplog.messages
        assert [path.name for path in checkpoint_paths(folder / "checkpoints")][-1] == "step-000000014.pt"
    assert losses(tmp_path / "whole") == pytest.approx(losses(tmp_path / "stopped"), rel=0, abs=0, nan_ok=True)


def test_losses_of_weights_that_are_given_up_do_not_count(tmp_path, monkeypatch):
    spoil(monkeypatch, lambda step: 4 <= step < 7)  # step 3 is good, and from weights that are given up
    run(tmp_path, 8, {"max_skipped": 3})
    progress = read_training_checkpoint(checkpoint_paths(tmp_path / "checkpoints")[-1])["progress"]
    assert (progress["loss_sum"], progress["loss_count"]) == (losses(tmp_path)[7], 1)


def test_a_run_that_does_not_recover_ends(tmp_path, monkeypatch):
    spoil(monkeypatch, lambda step: step >= 4)
    with pytest.raises(TrainingError, match=r"step 13: no loss and gradient is finite any more, from none of the 2 "):
        run(tmp_path, 30, {"max_skipped": 3})


# --- half precision --------------------------------------------------------------------------------------------------


def scaled_fabric():
    from lightning_fabric import Fabric

    fabric = Fabric(accelerator="cpu", devices=1, plugins=[half_precision("cpu")])
    fabric.launch()
    return fabric


def test_the_scaler(tmp_path, monkeypatch):
    """The scale falls after each step that overflows, not below 1024, and goes on where it was."""
    spoil(monkeypatch, lambda step: step not in (4, 9))
    run(tmp_path, 5, fabric=scaled_fabric())
    assert read_training_checkpoint(checkpoint_paths(tmp_path / "checkpoints")[-1])["scaler"]["scale"] == 4096
    run(tmp_path, 10, fabric=scaled_fabric())
    rows = read_log(tmp_path / "log.csv")
    assert [row["scale"] for row in rows] == [65536, 32768, 16384, 8192, 4096, 4096, 2048, 1024, 1024, 1024]
    assert [row["skipped"] for row in rows] == [1, 1, 1, 1, 0, 1, 1, 1, 1, 0]
    scaler = read_training_checkpoint(checkpoint_paths(tmp_path / "checkpoints")[-1])["scaler"]
    assert (scaler["growth_interval"], scaler["_growth_tracker"]) == (100, 1)


def test_sixteen_bits_on_a_cpu_are_thirty_two(caplog):
    fabric = make_fabric("16-mixed", "cpu")
    assert fabric.strategy.precision.precision == "32-true"
    assert "computing in 32 bits: 16-mixed is for GPUs" in caplog.text


@pytest.mark.parametrize("first", [True, False])
def test_a_run_goes_on_with_and_without_a_scaler(tmp_path, first):
    """As one with 16-mixed does that moves from a GPU to a CPU, or back."""
    for steps, scaled in ((2, first), (4, not first), (6, first)):
        fabric = scaled_fabric() if scaled else make_fabric(device="cpu")
        run(tmp_path, steps, {"checkpoint_every": 1}, fabric=fabric)
        assert (read_log(tmp_path / "log.csv")[steps - 1]["scale"] > 1) == scaled


@pytest.mark.parametrize("half", [True, False])
def test_a_norm_that_overflows_is_skipped(tmp_path, monkeypatch, half):
    """Its gradients are finite, so that a scaler would take the step."""
    original = module.meta_gradient

    def huge(ghn, meta_batch, *batch, **options):
        share = original(ghn, meta_batch, *batch, **options)
        for parameter in ghn.parameters():
            parameter.grad = torch.full_like(parameter, 3e38)
        return share

    one = Run(config(), tmp_path, scaled_fabric() if half else make_fabric(device="cpu"), digits())
    one.folder.mkdir(exist_ok=True)
    before = {name: tensor.clone() for name, tensor in one.ghn.state_dict().items()}
    monkeypatch.setattr(module, "meta_gradient", huge)
    monkeypatch.setattr(module, "SMALLEST_SCALE", 1.0)
    batches = one.batches(0)
    if half:
        one.scaler.load_state_dict({**one.scaler.state_dict(), "scale": 1.0, "_growth_tracker": 7})
    row = one.step(*next(batches), began=time.perf_counter())
    assert (row.skipped, row.norm) == (1, float("inf"))
    same(dict(one.ghn.state_dict()), before)
    assert not one.optimizer.optimizer.state
    if half:
        assert (one.scaler.get_scale(), one.scaler.state_dict()["_growth_tracker"]) == (1, 0)
    monkeypatch.setattr(module, "meta_gradient", original)
    assert not one.step(*next(batches), began=time.perf_counter()).skipped


def test_bfloat16_has_no_scaler(tmp_path):
    run(tmp_path, 2, fabric=make_fabric("bf16-mixed", "cpu"))
    assert read_training_checkpoint(checkpoint_paths(tmp_path / "checkpoints")[-1])["scaler"] == {}
