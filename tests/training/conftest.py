import pytest

from ghn_pyg.families.deepnets.architecture_sampling import SEARCH_SPACES, SearchSpace
from tests.training.tiny import run


@pytest.fixture(scope="module")
def small_architectures():
    """Small networks take half of the time; how large they are makes no difference to the loop that trains them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SEARCH_SPACES, "train", SearchSpace(cells=(4, 5), steps=(1, 2)))
        yield


@pytest.fixture(scope="module")
def whole(small_architectures, tmp_path_factory):
    """Folder and weights of a run of 10 steps that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(folder, 10)
