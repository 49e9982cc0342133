"""Runs something in a process that is killed at one of its steps."""

import os
import sys

_STEPS = ("open", "os", "shutil", "tempfile", "fcntl")


def killed_at(step, action):
    """Runs an action in a new process, which ends before its given call of the system; whether it came that far."""
    child = os.fork()
    if child == 0:
        left = step

        def count(event, _):
            nonlocal left
            if event.split(".")[0] in _STEPS:
                if left == 0:
                    os._exit(9)
                left -= 1

        sys.addaudithook(count)
        try:
            action()
        except BaseException:  # noqa: BLE001 - the tests of the parent must not run on here
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9)
    return code == 9
