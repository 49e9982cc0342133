"""Steps without a finite loss or gradient, also in half precision."""

import math
import time

import pytest
import torch
from lightning_fabric import Fabric

from ghn_pyg import from_pretrained
from ghn_pyg.training import Run, TrainingError, bad_steps
from ghn_pyg.training import run as module
from ghn_pyg.training.checkpoints import checkpoint_paths, read_checkpoint
from ghn_pyg.training.fabric import half_precision, make_fabric
from ghn_pyg.training.logs import read_log
from tests.training.tiny import assert_equal, config, digits, losses, run

pytestmark = pytest.mark.usefixtures("small_architectures")


def spoil(monkeypatch, bad):
    """Makes the loss and the gradient of the steps NaN for which ``bad`` is true."""
    original = module.meta_gradient

    def spoiled(ghn, meta_batch, *batch, **options):
        shares = original(ghn, meta_batch, *batch, **options)
        if bad(meta_batch.step):
            next(ghn.parameters()).grad.fill_(torch.nan)
            shares[:2] = torch.nan
        return shares

    monkeypatch.setattr(module, "meta_gradient", spoiled)


def last_checkpoint(folder):
    return read_checkpoint(checkpoint_paths(folder / "checkpoints")[-1])


def test_bad_steps_are_skipped_counted_and_logged(tmp_path, monkeypatch, caplog):
    spoil(monkeypatch, lambda step: step in (2, 4))
    before = run(tmp_path, 2)
    assert_equal(run(tmp_path, 3), before)
    run(tmp_path, 6)
    assert [row["skipped"] for row in read_log(tmp_path / "log.csv")] == [0, 0, 1, 0, 1, 0]
    state = last_checkpoint(tmp_path)
    assert (state["progress"]["skipped"], state["progress"]["skipped_in_a_row"]) == (2, 0)
    assert all(tensor.isfinite().all() for tensor in state["ghn"].values())
    # Step 2 came twice: a run that is stopped right after a bad step resumes from the checkpoint before it.
    assert [message for message in caplog.messages if "skipped" in message] == [
        f"step {step} skipped: its loss or gradient is not finite" for step in (2, 2, 4)
    ]


def test_many_bad_steps_roll_back(tmp_path, monkeypatch, caplog):
    spoil(monkeypatch, lambda step: 4 <= step < 11)
    run(tmp_path, 15, {"max_skipped": 3})
    assert [message for message in caplog.messages if "rolled back" in message] == [
        "rolled back to step-000000003.pt, continuing with step 7",
        "rolled back to step-000000000.pt, continuing with step 10",
    ]
    progress = last_checkpoint(tmp_path)["progress"]
    assert (progress["skipped"], progress["rollbacks"], progress["rollbacks_in_a_row"]) == (7, 2, 0)


def test_stopping_amid_bad_steps_changes_nothing(tmp_path, monkeypatch, caplog):
    """No checkpoint is replaced by one with weights that may be to blame."""
    spoil(monkeypatch, lambda step: 10 <= step < 19)
    for folder, stops in ((tmp_path / "whole", (24,)), (tmp_path / "stopped", (11, 14, 17, 20, 24))):
        caplog.clear()
        for stop in stops:
            run(folder, stop, {"max_skipped": 4, "keep": 2, "meta_batch": 1})
        assert "rolled back to step-000000006.pt, continuing with step 18" in caplog.messages
        assert checkpoint_paths(folder / "checkpoints")[-1].name == "step-000000024.pt"
    assert losses(tmp_path / "whole") == pytest.approx(losses(tmp_path / "stopped"), rel=0, abs=0, nan_ok=True)


def test_losses_before_a_rollback_do_not_count(tmp_path, monkeypatch):
    spoil(monkeypatch, lambda step: 4 <= step < 7)  # step 3 is good, but its weights are given up
    run(tmp_path, 10, {"max_skipped": 3})
    progress = last_checkpoint(tmp_path)["progress"]
    assert (progress["loss_sum"], progress["loss_count"]) == (pytest.approx(sum(losses(tmp_path)[7:]), rel=1e-12), 3)


def test_a_run_that_does_not_recover_ends(tmp_path, monkeypatch):
    spoil(monkeypatch, lambda step: step >= 4)
    with pytest.raises(TrainingError, match=r"step 13: losses or gradients are not finite, also from each of the 2 "):
        run(tmp_path, 30, {"max_skipped": 3})


def test_single_good_steps_do_not_hide_that_a_run_does_not_recover(tmp_path, monkeypatch):
    spoil(monkeypatch, lambda step: step >= 4 and step % 4 != 3)
    with pytest.raises(TrainingError, match=r"step 15: losses or gradients are not finite, also from each of the 2 "):
        run(tmp_path, 30, {"max_skipped": 3})


def test_a_learning_rate_that_is_far_too_high(tmp_path):
    with pytest.raises(TrainingError, match=r"not finite.*lower learning_rate"):
        run(tmp_path, 30, {"learning_rate": 1e30, "max_skipped": 3})
    assert not (tmp_path / "ghn").exists()
    for name in ("best", *(path.relative_to(tmp_path) for path in checkpoint_paths(tmp_path / "checkpoints"))):
        if (tmp_path / name).exists():
            assert all(tensor.abs().max() < 9 for tensor in from_pretrained(tmp_path / name).state_dict().values())


def test_a_run_that_mostly_skips_is_an_error(tmp_path, monkeypatch):
    spoil(monkeypatch, lambda step: step % 3 > 0)
    with pytest.raises(TrainingError, match=r"^4 of 7 steps were skipped.*lower learning_rate"):
        run(tmp_path, 7)
    assert not (tmp_path / "ghn").exists()
    assert_equal(dict(from_pretrained(checkpoint_paths(tmp_path / "checkpoints")[-1]).state_dict()),
                 last_checkpoint(tmp_path)["ghn"])  # fmt: skip


def test_lack_of_memory_for_the_ghn_is_told_with_the_step(tmp_path, monkeypatch):
    original = module.clip_and_step

    def fail(state, *arguments, **options):
        if state.progress.step == 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB")
        return original(state, *arguments, **options)

    monkeypatch.setattr(module, "clip_and_step", fail)
    with pytest.raises(TrainingError, match=r"^step 2: memory does not suffice.*3 GiB.*smaller GHN"):
        run(tmp_path, 4)


@pytest.mark.parametrize("fault", ["gradient", "weight"])
def test_the_trained_ghn_is_the_last_good_one(tmp_path, monkeypatch, caplog, fault):
    """Not one whose steps were bad, or whose weights overflow though its last loss did not."""
    if fault == "gradient":
        spoil(monkeypatch, lambda step: step == 7)
    else:
        original = module.clip_and_step

        def overflow(state, *arguments, **options):
            norm = original(state, *arguments, **options)
            if state.progress.step == 7:
                with torch.no_grad():
                    next(state.ghn.parameters()).fill_(1.6e27)
            return norm

        monkeypatch.setattr(module, "clip_and_step", overflow)
    weights = run(tmp_path, 8)
    assert checkpoint_paths(tmp_path / "checkpoints")[-1].name == "step-000000006.pt"
    assert_equal(weights, last_checkpoint(tmp_path)["ghn"])
    assert_equal(dict(from_pretrained(tmp_path / "ghn").state_dict()), weights)
    assert "the trained GHN is that of step-000000006.pt" in caplog.text


def test_a_step_that_leaves_out_all_networks_is_skipped(tmp_path):
    one = Run(config(balance=True), tmp_path, make_fabric(device="cpu"), digits())
    with torch.no_grad():
        one.state.ghn.decoder.weight.last_layers()[0].weight.fill_(torch.nan)
    before = [parameter.clone() for parameter in one.state.ghn.parameters()]
    row = one.step(*next(one.batches(0)), time.perf_counter())
    assert (row.left_out, row.skipped, row.loss) == (2, 1, 10)
    torch.testing.assert_close(list(one.state.ghn.parameters()), before, rtol=0, atol=0, equal_nan=True)
    assert one.state.progress.skipped == 1


# --- half precision --------------------------------------------------------------------------------------------------


def scaled_fabric():
    fabric = Fabric(accelerator="cpu", devices=1, plugins=[half_precision("cpu")])
    fabric.launch()
    return fabric


def test_13_the_loss_scale_is_saved_and_restored(tmp_path, monkeypatch):
    """It falls after each step that overflows, but not below 1024."""
    spoil(monkeypatch, lambda step: step not in (4, 9))
    with pytest.raises(TrainingError, match="4 of 5 steps were skipped"):
        run(tmp_path, 5, fabric=scaled_fabric())
    assert last_checkpoint(tmp_path)["scaler"]["scale"] == 4096
    with pytest.raises(TrainingError, match="8 of 10 steps were skipped"):
        run(tmp_path, 10, fabric=scaled_fabric())
    rows = read_log(tmp_path / "log.csv")
    assert [row["scale"] for row in rows] == [65536, 32768, 16384, 8192, 4096, 4096, 2048, 1024, 1024, 1024]
    assert [row["skipped"] for row in rows] == [1, 1, 1, 1, 0, 1, 1, 1, 1, 0]
    scaler = last_checkpoint(tmp_path)["scaler"]
    assert (scaler["growth_interval"], scaler["_growth_tracker"]) == (100, 1)


def test_half_precision_on_a_cpu_is_single_precision(caplog):
    fabric = make_fabric("16-mixed", "cpu")
    assert fabric.strategy.precision.precision == "32-true"
    assert "computing in 32 bits: 16-mixed is for GPUs" in caplog.text


@pytest.mark.parametrize("first", [True, False])
def test_a_run_resumes_with_and_without_a_scaler(tmp_path, first):
    """As one with 16-mixed does that moves from a GPU to a CPU, or back."""
    for steps, scaled in ((2, first), (4, not first), (6, first)):
        fabric = scaled_fabric() if scaled else make_fabric(device="cpu")
        run(tmp_path, steps, {"checkpoint_every": 1}, fabric=fabric)
        assert (read_log(tmp_path / "log.csv")[steps - 1]["scale"] > 1) == scaled


@pytest.mark.parametrize("half", [True, False])
def test_a_norm_that_overflows_is_skipped(tmp_path, monkeypatch, half):
    """Its gradients are finite, so that a scaler would take the step."""
    fabric = scaled_fabric() if half else make_fabric(device="cpu")
    one = Run(config(), tmp_path, fabric, digits())
    state, batches = one.state, one.batches(0)
    monkeypatch.setattr(bad_steps, "MIN_SCALE", 1.0)
    one.step(*next(batches), time.perf_counter())
    before = {name: tensor.clone() for name, tensor in state.ghn.state_dict().items()}
    if half:
        state.scaler.load_state_dict({**state.scaler.state_dict(), "scale": 1.0, "_growth_tracker": 7})
    for parameter in state.ghn.parameters():
        parameter.grad = torch.full_like(parameter, 3e38)
    assert bad_steps.clip_and_step(state, fabric, 5.0, finite=True) == math.inf
    assert_equal(dict(state.ghn.state_dict()), before)
    if half:
        assert (state.scaler.get_scale(), state.scaler.state_dict()["_growth_tracker"]) == (1, 0)
    assert not one.step(*next(batches), time.perf_counter()).skipped


def test_bfloat16_has_no_scaler(tmp_path):
    run(tmp_path, 2, fabric=make_fabric("bf16-mixed", "cpu"))
    assert last_checkpoint(tmp_path)["scaler"] == {}
