import gc

import pytest

from ghn_pyg.collecting import collector_paused


@pytest.fixture(autouse=True)
def collector():
    """Leaves the collector as it was."""
    before = gc.isenabled()
    yield
    (gc.enable if before else gc.disable)()


@pytest.mark.parametrize("before", [True, False])
def test_the_collector_is_off_inside_and_as_before_afterwards(before):
    (gc.enable if before else gc.disable)()
    with collector_paused():
        assert not gc.isenabled()
    assert gc.isenabled() == before


def test_contexts_nest():
    gc.enable()
    with collector_paused():
        with collector_paused():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()


def test_the_collector_is_back_after_an_error():
    gc.enable()
    with pytest.raises(KeyError), collector_paused():
        raise KeyError("3")
    assert gc.isenabled()
