"""Rules for single values; test_fingerprint.py has whole networks."""

import collections
import enum
import functools
import operator
import pathlib
import re
import weakref

import pytest
import torch

from ghn_pyg.caching.description import Description, Undescribable


def digest(value):
    description = Description()
    description.value(value)
    return description.digest()


class Level(enum.IntEnum):
    LOW = 1


class Mapping(dict):
    pass


class Name(str):
    __slots__ = ()


class Fault(ValueError):
    pass


class Lazy:
    @functools.cached_property
    def size(self):
        return 3


def marked(mark):
    made = Mapping(a=2)
    made.mark = mark
    return made


DISTINCT = [
    None, 0, 1, -1, 1.0, True, False, 1j, float("nan"), "1", "", b"", b"1", b"none", "none", ..., NotImplemented,
    1 << 99, (), (1,), ((1,),), (1, (2,)), (1, 2), [1, 2], [[1], 2], [1, [2]], {1, 2}, frozenset(("1", 2)), range(2),
    range(3), slice(2), slice(2, None), {1: 2}, {2: 1}, {1: 2, 3: 4}, {3: 4, 1: 2}, {"a": {}}, {"a": ()},
    collections.OrderedDict(a=1), collections.defaultdict(list), collections.deque([1]), Mapping(a=1), marked(2),
    marked(3), Level.LOW, Level, Name("1"), Fault, Lazy, Lazy(), torch.float32, torch.float64, torch.device("cpu"),
    torch.Size([1, 2]), torch.strided, torch.channels_last, re.compile("a"), re.compile("b"), re.compile("a", re.I),
    pathlib.PurePosixPath("a"), operator.itemgetter(1), operator.attrgetter("a"), operator.attrgetter("b"), len, sum,
    "a".join, "b".join, str.join, list[int], list[str], int | str, int | None, functools.partial(len),
    functools.lru_cache(len),
]  # fmt: skip


def test_different_values_have_different_descriptions():
    digests = collections.defaultdict(list)
    for value in DISTINCT:
        assert digest(value) == digest(value)
        digests[digest(value)].append(value)
    assert [values for values in digests.values() if len(values) > 1] == []


def test_the_order_of_a_set_does_not_count():
    assert digest({"one", "two", len, Level.LOW, 5}) == digest({5, Level.LOW, len, "two", "one"})


def test_values_that_are_met_again_are_references():
    first, second = [2], [2]
    assert digest([first, first]) != digest([first, second])
    assert digest([first, first]) == digest([second, second])


def test_references():
    value = Lazy()
    assert digest([value, weakref.ref(value)]) != digest([value, weakref.ref(Lazy)])


def test_hidden_state_is_not_passed_over():
    for value in (iter([]), memoryview(b""), (x for x in ()), open, Fault(2)):
        with pytest.raises(Undescribable):
            digest(value)
