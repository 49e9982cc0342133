import builtins
import dataclasses
import math

from ghn_pyg.training.logs import LogRow, RunLog, read_log


def row(step, loss=2.5):
    return LogRow(step, step / 4, loss, 0.25, 1.5, 1e-3, 1.0, 3, 0, 0.5, 8)


def test_a_resumed_log_is_cut_back(tmp_path):
    path = tmp_path / "log.csv"
    with RunLog(tmp_path, 0) as log:
        for step in range(5):
            log.write(row(step))
        assert len(read_log(path)) == 5  # before it is closed
    with open(path, "a") as stream:
        stream.write("5,1.2")  # the process was killed within a row
    with RunLog(tmp_path, 3) as log:
        log.write(row(3, loss=1.5))
    assert [(row["step"], row["loss"]) for row in read_log(path)] == [(0, 2.5), (1, 2.5), (2, 2.5), (3, 1.5)]
    assert path.read_text().splitlines()[0].startswith("step,epoch,loss,top1,norm")


def test_the_log_of_an_older_version_gets_its_new_columns(tmp_path):
    (tmp_path / "log.csv").write_text("step,epoch,loss\n0,0.0,2.5\n1,0.25,2.25\n2,0.5")
    with RunLog(tmp_path, 2) as log:
        log.write(row(2, loss=1.5))
    rows = read_log(tmp_path / "log.csv")
    assert [(row["step"], row["loss"]) for row in rows] == [(0, 2.5), (1, 2.25), (2, 1.5)]
    assert [math.isnan(row["seconds"]) for row in rows] == [True, True, False]


def test_tensorboard_shows_the_log(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for start, loss in ((0, 2.5), (1, 1.5)):
        with RunLog(tmp_path, start) as log:
            for step in range(start, 3):
                log.write(dataclasses.replace(row(step, loss), val_top1=0.5 if step == 2 else math.nan))
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(0, 2.5), (1, 1.5), (2, 1.5)]
    assert [(event.step, event.value) for event in events.Scalars("val_top1")] == [(2, 0.5)]
    assert {"top1", "norm", "rate"} <= set(events.Tags()["scalars"])


def test_without_tensorboard(tmp_path, monkeypatch):
    original = builtins.__import__

    def missing(name, *arguments):
        if name == "torch.utils.tensorboard":
            raise ImportError(name)
        return original(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", missing)
    with RunLog(tmp_path, 0) as log:
        log.write(row(0))
    assert len(read_log(tmp_path / "log.csv")) == 1
    assert not (tmp_path / "tensorboard").exists()
