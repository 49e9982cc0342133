"""Runs something in a process that is killed at one of its steps, or in a write."""

import mmap
import os
import signal
import sys

_STEPS = ("open", "os", "shutil", "tempfile", "fcntl")


def killed_at(step, action):
    """Runs an action in a new process, which ends before its given call of the system; whether it came that far."""
    return _run(lambda: _at_each_call(lambda number: number == step and os._exit(9)), action)


def killed_in_a_write(size, action):
    """The same for a process that ends when a file would grow over ``size`` bytes."""

    def limit():
        import resource  # which Windows does not have

        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python ignores it
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    return _run(limit, action)


def count_steps(action):
    """The number of the calls at which :func:`killed_at` can end an action, which is run to its end."""
    shared = mmap.mmap(-1, 8)
    assert not _run(lambda: _at_each_call(lambda number: shared.__setitem__(slice(8), number.to_bytes(8))), action)
    return int.from_bytes(shared[:]) + 1


def _at_each_call(function):
    calls = iter(range(10**9))

    def count(event, _):
        if event.split(".")[0] in _STEPS:
            function(next(calls))

    sys.addaudithook(count)


def _run(prepare, action):
    child = os.fork()
    if child == 0:
        prepare()
        try:
            action()
        except BaseException:  # noqa: BLE001 - the tests of the parent must not run on here
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9) or -code == getattr(signal, "SIGXFSZ", None)
    return code != 0
