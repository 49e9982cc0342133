import json
import math
from importlib import resources

import pytest

from ghn_pyg.models.published_norms import published_norm


@pytest.mark.parametrize(
    ("architecture", "ghn", "norm"),
    [
        ("alexnet", "ghn2", 33.4662),
        ("alexnet", "ghn3tm8", 59.5741),
        ("alexnet", "ghn3xlm16", 72.4766),
        ("squeezenet1_0", "ghn2", 83.2744),
        ("squeezenet1_1", "ghn3xlm16", 71.4170),
    ],
)
def test_published_norms(architecture, ghn, norm):
    assert published_norm(architecture, ghn) == norm


def test_what_was_not_published():
    assert published_norm("my_net", "ghn2") is None
    assert published_norm("alexnet", "ghn3lm8") is None


def test_the_table_is_whole():
    table = json.loads(resources.files("ghn_pyg").joinpath("models", "published_norms.json").read_text())
    assert len(table) == 74
    for architecture, norms in table.items():
        assert list(norms) == ["ghn2", "ghn3tm8", "ghn3xlm16"]
        assert all(math.isfinite(norm) and 10 < norm < 1000 for norm in norms.values()), architecture
