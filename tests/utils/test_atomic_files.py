import errno
import os

import pytest

from ghn_pyg.utils.atomic_files import replacing


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


def test_an_error_of_the_writer_passes_through(tmp_path):
    with pytest.raises(UnicodeEncodeError), replacing(tmp_path / "numbers.txt") as file:
        file.write_text("2 3 ⅝", encoding="ascii")
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "numbers.txt"
    with pytest.raises(OSError, match=r"cannot write .*numbers\.txt: Not a directory"), replacing(path) as unfinished:
        unfinished.write_text("2 3 5")
