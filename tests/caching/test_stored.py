import hashlib
import json

import pytest
import torch
from torch import nn

from ghn_pyg import from_module
from ghn_pyg.caching.stored import from_bytes, same, to_bytes

KEY = "a" * 64


def graph(cutoff=50):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Conv2d(3, 5, 3)
            self.b = nn.ConvTranspose2d(5, 5, 3, groups=5)
            self.c = nn.Conv2d(5, 5, 1, bias=False)
            self.c.weight = nn.Parameter(torch.rand(5, 5, 1, 1))
            self.d = nn.Conv2d(5, 5, 1)
            self.d.weight = self.c.weight
            self.unused = nn.Parameter(torch.rand(7))

        def forward(self, x):
            x = self.b(self.a(x))
            return self.d(self.c(x) + x)

    return from_module(Net(), torch.rand(1, 3, 11, 13), cutoff)


@pytest.mark.parametrize("cutoff", [2, 50, 300])
def test_every_field_comes_back(cutoff):
    before = graph(cutoff)
    assert before.kept
    assert before.tied
    after = from_bytes(to_bytes(before, KEY), KEY, cutoff)
    assert type(after) is type(before)
    assert after.to_dict().keys() == before.to_dict().keys()
    for name, value in before.to_dict().items():
        other = after[name]
        if isinstance(value, torch.Tensor):
            assert (other.dtype, other.shape, other.tolist()) == (value.dtype, value.shape, value.tolist()), name
            assert other.is_contiguous()
        else:
            assert other == value, name
    assert (after.kept, after.tied) == (before.kept, before.tied)
    assert [type(spec.shape) for specs in after.params for spec in specs] == [tuple] * 6
    assert same(after, before)


def test_weights_of_several_dimensions():
    layer = nn.Bilinear(3, 5, 7)
    before = from_module(layer, (torch.rand(2, 3), torch.rand(2, 5)))
    assert [spec.axes for specs in before.params for spec in specs] == ["oii", ""]
    assert same(from_bytes(to_bytes(before, KEY), KEY, 50), before)


def test_a_network_of_one_layer():
    before = from_module(nn.PReLU(), torch.rand(2, 5))
    assert same(from_bytes(to_bytes(before, KEY), KEY, 50), before)


def test_names_of_any_kind():
    model = nn.Sequential()
    model.add_module("größe\n\"'\\\ud800", nn.Linear(3, 5))
    before = from_module(model, torch.rand(2, 3))
    assert same(from_bytes(to_bytes(before, KEY), KEY, 50), before)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("node_type", torch.tensor([9, 4, 4])),
        ("node_type", torch.tensor([9, 4, 10], dtype=torch.int32)),
        ("node_names", ["input", "weight", "other"]),
        ("kept_items", (("weight", "why"),)),
        ("another", 3),
    ],
)
def test_same_sees_each_field(field, value):
    one, other = (from_module(nn.Linear(3, 5), torch.rand(2, 3)) for _ in range(2))
    assert same(one, other)
    other[field] = value
    assert not same(one, other)
    assert not same(other, one)


def test_every_changed_or_missing_byte_is_noticed():
    text = to_bytes(from_module(nn.Linear(3, 5), torch.rand(2, 3)), KEY)
    for place in range(len(text)):
        assert from_bytes(text[:place], KEY, 50) is None
        assert from_bytes(text[:place] + bytes([text[place] ^ 1]) + text[place + 1 :], KEY, 50) is None
    assert from_bytes(text + b" ", KEY, 50) is None
    assert from_bytes(text, "b" * 64, 50) is None


def test_what_has_a_hash_is_checked_all_the_same():
    body = json.loads(to_bytes(from_module(nn.Linear(3, 5), torch.rand(2, 3)), KEY).split(b"\n", 1)[1])

    def read(fields):
        text = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
        return from_bytes(hashlib.sha256(text).hexdigest().encode() + b"\n" + text, KEY, 50)

    assert read(body) is not None
    assert read(b"") is None
    assert read(b"[" * 100_000) is None
    assert read(b"\xff") is None
    assert read([]) is None
    for field in body:
        without = {name: value for name, value in body.items() if name != field}
        assert read(without) is None
        for value in (None, 3, "text", [], {}, [[]], [None] * 3, [[1, 2], [0]], [1 << 70] * 3, [True] * 3, {"a": 3}):
            if body[field] != value and (field, value) != ("classifier", []):
                assert read({**body, field: value}) is None, (field, value)
    for edges in ([[1], [0]], [[0], [3]], [[-1], [2]], [[0.0], [1]]):
        assert read({**body, "edges": edges}) is None
    names, shapes, roles, layouts, groups, *counts, axes = body["specs"]
    for specs in (
        [names[:1], shapes, roles, layouts, groups, *counts, axes],
        [names, [3, 5], roles, layouts, groups, *counts, axes],
        [names, [["3"], [5]], roles, layouts, groups, *counts, axes],
        [names, shapes, ["weight", "other"], layouts, groups, *counts, axes],
        [names, shapes, roles, ["out_in", "other"], groups, *counts, axes],
        [names, shapes, roles, layouts, [1, None], *counts, axes],
        [names, shapes, roles, layouts, groups, *counts, ["oi", None]],
        [names, shapes, roles, layouts, groups, *counts, ["oii", ""]],
        [names, shapes, roles, layouts, groups, *counts, ["ok", ""]],
    ):
        assert read({**body, "specs": specs}) is None
