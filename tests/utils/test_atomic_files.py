import errno
import os

import pytest

from ghn_pyg.utils.atomic_files import (
    finish_replacing,
    remove_unfinished,
    replacing,
    replacing_together,
    unfinished_folder,
    write_text,
)
from tests.killed import killed_at


def test_the_file_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "numbers.txt"
    path.write_text("old")
    with replacing(path) as unfinished:
        unfinished.write_text("2 3 5")
        assert unfinished.stat().st_dev == tmp_path.stat().st_dev
        assert path.read_text() == "old"
    assert path.read_text() == "2 3 5"
    assert os.listdir(tmp_path) == ["numbers.txt"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failure_leaves_what_was_there(step, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "numbers.txt"
    path.write_text("old")
    monkeypatch.setattr(os, step, fail)
    with (
        pytest.raises(OSError, match=r"^cannot write .*numbers\.txt: No space left on device$"),
        replacing(path) as file,
    ):
        file.write_text("2 3 5")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["numbers.txt"]


def test_several_files_are_replaced_when_all_are_complete(tmp_path):
    (tmp_path / "b.txt").write_text("old")
    with (
        pytest.raises(OSError, match="cannot write"),
        replacing_together(tmp_path / "a.txt", tmp_path / "b.txt") as files,
    ):
        files[1].unlink()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"b.txt": "old"}
    with replacing_together(tmp_path / "a.txt", tmp_path / "b.txt") as files:
        for path, text in zip(files, ("2", "3"), strict=True):
            path.write_text(text)
            path.chmod(0o600)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.txt": "2", "b.txt": "3"}
    (tmp_path / "plain").touch()
    assert len({path.stat().st_mode for path in tmp_path.iterdir()}) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the writer is another process")
def test_files_of_killed_writers_go_and_those_of_others_stay(tmp_path):
    path = tmp_path / "numbers.txt"
    with unfinished_folder(tmp_path) as other:
        for step in range(1000):
            path.write_text("old")
            if not killed_at(step, lambda: write_text(path, "new")):
                break
            assert path.read_text() in ("old", "new")
        assert step > 10
        assert other.is_dir()
        assert len(os.listdir(tmp_path)) == 2
    killed_at(step - 5, lambda: write_text(path, "new"))
    remove_unfinished(tmp_path)
    assert os.listdir(tmp_path) == ["numbers.txt"]


def test_an_error_of_the_writer_passes_through(tmp_path):
    with pytest.raises(UnicodeEncodeError), replacing(tmp_path / "numbers.txt") as file:
        file.write_text("2 3 ⅝", encoding="ascii")
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "numbers.txt"
    with pytest.raises(OSError, match=r"cannot write .*numbers\.txt: Not a directory"), replacing(path) as unfinished:
        unfinished.write_text("2 3 5")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the writer is another process")
@pytest.mark.parametrize("finish", [finish_replacing, remove_unfinished, lambda folder: write_text(folder / "c", "")])
def test_files_that_belong_together_are_never_mixed(finish, tmp_path):
    paths = tmp_path / "a", tmp_path / "b"

    def write():
        with replacing_together(*paths) as files:
            for file in files:
                file.write_text("new")

    found = []
    for step in range(1000):
        for path in paths:
            path.write_text("old")
        if not killed_at(step, write):
            break
        finish(tmp_path)
        found.append({path.read_text() for path in paths})
        assert not (tmp_path / ".ghn-pyg-complete").exists()
    assert found == sorted(found, key=[{"old"}, {"new"}].index)
    assert found.count({"new"}) > 2


def test_files_of_another_folder_stay_there(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "key").write_text("secret")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".ghn-pyg-complete").symlink_to(tmp_path / "mine")
    finish_replacing(tmp_path / "out")
    write_text(tmp_path / "out" / "numbers.txt", "2 3 5")
    assert os.listdir(tmp_path / "mine") == ["key"]


def test_a_folder_in_place_of_a_file(tmp_path):
    (tmp_path / "b").mkdir()
    with pytest.raises(OSError, match="b is a folder"), replacing_together(tmp_path / "a", tmp_path / "b"):
        pass
    assert os.listdir(tmp_path) == ["b"]
