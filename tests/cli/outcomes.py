"""What tests of commands share."""

import contextlib
import resource


@contextlib.contextmanager
def small_disk(size=1000):
    """Inside this context no file can grow over 1,000 bytes, or ``size``; not even a log that the tests write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def failed(result):
    """The message of a command that ended as it should for a user's error."""
    code, out, err = result
    assert code == 2
    assert out == []
    assert err.startswith("Error: ")
    assert err.count("\n") == 1
    return err
