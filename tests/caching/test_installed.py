import functools
import sys
import types

import pytest
import torch

from ghn_pyg.caching.installed import function_origin, namespace, origin


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("math", "computes"),
        ("collections.abc", "computes"),
        ("_collections_abc", "computes"),
        ("os", "asks"),
        ("random", "asks"),
        ("torch", "installed"),
        ("torch.nn.modules", "installed"),
        ("ghn_pyg.deepnets", "installed"),
        ("tests", "user"),
        ("__main__", "user"),
        ("never_imported", "user"),
        ("", "user"),
    ],
)
def test_origin(name, expected):
    assert origin(name) == expected


@functools.wraps(torch.nn.functional.relu)
def borrowed(x):
    return x


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (torch.nn.functional.relu, "installed"),
        (torch.backends.cudnn.is_available, "installed"),  # of a module that is another object now
        (functools.wraps, "computes"),
        (borrowed, "user"),
        (lambda x: x, "user"),
    ],
)
def test_origin_of_functions(function, expected):
    assert function_origin(function) == expected


SOURCE = """
SIZE = 3
SESSION = "3e7f"
NAMES = {}

def run(x):
    return x + 2

class Part:
    KINDS = {}
    def run(self):
        return 2

class Registry:
    shared = {}
    def __init__(self):
        self.own = {}

REGISTRY = Registry()
"""


@pytest.fixture
def package(monkeypatch, tmp_path):
    folder = tmp_path / "site-packages"
    folder.mkdir()
    (folder / "tests_package.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(folder)
    import tests_package

    yield tests_package
    del sys.modules["tests_package"]


def test_what_is_unchanged_is_not_read_again(package):
    assert namespace(package) is namespace(package)


def mine(x):
    return x


CHANGES = {
    "value": lambda package: setattr(package, "SIZE", 5),
    "new name": lambda package: setattr(package, "OTHER", 5),
    "missing name": lambda package: delattr(package, "SIZE"),
    "exchanged": lambda package: setattr(package, "run", package.Part),
    "code": lambda package: setattr(package.run, "__code__", (lambda x: x + 3).__code__),
    "method": lambda package: setattr(package.Part, "run", lambda self: 3),
    "code of a method": lambda package: setattr(package.Part.run, "__code__", (lambda self: 3).__code__),
    "attribute of a class": lambda package: setattr(package.Part, "size", 3),
}
REGISTRIES = {
    "dictionary": lambda package: package.NAMES,
    "dictionary of a class": lambda package: package.Part.KINDS,
    "dictionary of an object": lambda package: package.REGISTRY.own,
    "dictionary of an object's class": lambda package: package.REGISTRY.shared,
}


@pytest.mark.parametrize("case", CHANGES)
def test_changes_are_noticed(package, case):
    before = namespace(package)
    CHANGES[case](package)
    assert namespace(package).digest != before.digest


@pytest.mark.parametrize("case", REGISTRIES)
def test_registries(package, case):
    registry = REGISTRIES[case](package)
    before = namespace(package)
    registry["mine"] = mine
    after = namespace(package)
    assert after.digest != before.digest
    assert after.foreign == [mine]
    registry["mine"] = package.run
    assert namespace(package).foreign == []
    del registry["mine"]
    assert namespace(package).digest == before.digest


def test_texts_do_not_count(package):
    before = namespace(package)
    package.SESSION = "5a11"
    assert namespace(package).digest == before.digest


def test_one_dictionary_can_be_left_out(package):
    before = namespace(package, package.NAMES)
    package.NAMES["mine"] = mine
    assert namespace(package, package.NAMES) is before


def test_patches_are_foreign(package):
    assert namespace(package).foreign == []
    package.run = mine
    assert namespace(package).foreign == [mine]


def test_a_function_that_encloses_itself(package):
    def endless():
        return endless

    endless.__code__ = endless.__code__.replace(co_filename=package.__file__)
    package.endless = types.FunctionType(endless.__code__, vars(package), "endless", None, endless.__closure__)
    package.endless.__closure__[0].cell_contents = package.endless
    assert namespace(package).foreign == []


def test_another_module_of_the_same_name(package):
    before = namespace(package)
    other = types.ModuleType(package.__name__)
    assert namespace(other).digest != before.digest
