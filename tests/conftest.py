"""Settings of all tests."""

import errno
import gc
import os
import sys

import pytest

# Tensors here are small: a second thread costs more than it gives, and several times as much on a busy machine.
# In the environment, before torch is imported, it holds for the processes that tests start as well.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Each of the many processes that tests start would compile all libraries anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


@pytest.fixture(autouse=True, scope="module")
def imported_modules_are_no_garbage():
    """A full collection goes through the millions of objects of all libraries, unless they are frozen."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish():
    """Libraries free their objects at the exit."""
    gc.unfreeze()


@pytest.fixture
def full_disk(monkeypatch):
    """Nothing that is written reaches the disk."""

    def fail(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
