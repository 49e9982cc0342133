import pytest

from ghn_pyg.families.deepnets.architecture_sampling import SEARCH_SPACES, SearchSpace


@pytest.fixture(scope="module")
def small_architectures():
    """Networks of four cells with one step take a third of the time; larger ones are trained no differently."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SEARCH_SPACES, "train", SearchSpace(cells=(4, 5), steps=(1, 2)))
        yield
