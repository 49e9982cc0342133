import json
import math
from importlib import resources

import pytest

from ghn_pyg.models import published_norm


@pytest.mark.parametrize(
    ("architecture", "ghn", "norm"),
    [
        ("alexnet", "ghn2", 33.4662),
        ("alexnet", "ghn3tm8", 59.5741),
        ("squeezenet1_1", "ghn3xlm16", 71.4170),
        ("my_net", "ghn2", None),
        ("alexnet", "ghn3lm8", None),
    ],
)
def test_published_norms(architecture, ghn, norm):
    assert published_norm(architecture, ghn) == norm


def test_the_table_is_complete():
    table = json.loads(resources.files("ghn_pyg").joinpath("models", "published_norms.json").read_text())
    assert len(table) == 74
    for architecture, norms in table.items():
        assert list(norms) == ["ghn2", "ghn3tm8", "ghn3xlm16"]
        assert all(math.isfinite(norm) and 10 < norm < 1000 for norm in norms.values()), architecture
