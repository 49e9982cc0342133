import pytest

from ghn_pyg.caching import cache


@pytest.fixture
def traces(monkeypatch):
    """Counts the traces."""
    counted = []
    build = cache.build

    def counting(model, *args):
        counted.append(model)
        return build(model, *args)

    monkeypatch.setattr(cache, "build", counting)
    return counted
