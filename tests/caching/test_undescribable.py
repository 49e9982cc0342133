"""Networks of which cannot be known whether they are the same."""

import os
import random
import threading
import time
import types
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from ghn_pyg.caching.description import Undescribable
from tests.caching.fingerprints import Config, Slotted, key, layer


class Opens(nn.Linear):
    def forward(self, x):
        with open("sizes.txt") as file:
            return x * int(file.read())


class Imports(nn.Linear):
    def forward(self, x):
        import random as chance

        return x * chance.random()


def scripted():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(nn.Linear(5, 7))


HELPERS = types.ModuleType("tests_helpers_of_a_user")

UNKNOWN = {
    "files": (lambda: Opens(5, 7), "Opens: 'forward': open in Opens.forward: io.open is compiled, or asks"),
    "imports": (lambda: Imports(5, 7), "random in Imports.forward: the module random as a whole"),
    "environment": (lambda: layer(f=lambda x: os.environ["SIZE"]), "Linear: 'f': os.environ in .* an object|the class"),
    "environment by a function": (lambda: layer(f=lambda x: os.getenv("SIZE")), "os.getenv asks for what is outside"),
    "time": (lambda: layer(f=lambda x: time.time()), "time.time is compiled, or asks"),
    "random numbers": (lambda: layer(f=lambda x: random.random()), "random.random in "),
    "evaluation": (lambda: layer(f=lambda x: eval("x")), "builtins.eval"),  # noqa: S307
    "identity": (lambda: layer(f=lambda x: id(x)), "builtins.id"),
    "a module of the user's": (
        lambda: layer(f=lambda x: vars(HELPERS)),
        "the module tests_helpers_of_a_user as a whole",
    ),
    "generator": (lambda: layer(generator=torch.Generator()), "'generator': an object of type torch.*Generator"),
    "lock": (lambda: layer(lock=threading.Lock()), "'lock': an object of type _thread.lock"),
    "iterator": (lambda: layer(names=iter([2, 3])), "'names': an object of type builtins.list_iterator"),
    "large table": (lambda: layer(table=torch.empty(1 << 25, dtype=torch.uint8)), "too many to compare"),
    "objects in an array": (lambda: layer(table=np.array([object()])), "an array of object"),
    "objects in a set": (lambda: layer(kinds={Slotted(2)}), "a set that holds an object of type Slotted"),
    "sparse": (lambda: layer(table=torch.eye(3).to_sparse()), "a tensor of type Tensor and layout torch.sparse_coo"),
    "TorchScript": (lambda: nn.Sequential(scripted()), "0 is compiled by TorchScript"),
    "not yet a shape": (lambda: nn.LazyLinear(7), "a tensor of type UninitializedParameter"),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_what_cannot_be_known_is_said(case):
    make, message = UNKNOWN[case]
    with pytest.raises(Undescribable, match=message):
        key(make())


def test_the_place_is_said():
    net = nn.Sequential(nn.Linear(5, 7), nn.Sequential(layer(config=Config(inner=[threading.Lock()]))))
    with pytest.raises(Undescribable, match=r"^1\.0: 'config': 'inner': an object of type _thread.lock$"):
        key(net)


def test_operators_of_extensions():
    with torch.library._scoped_library("ghn_tests", "DEF") as library:
        library.define("twice(Tensor x) -> Tensor")
        with pytest.raises(Undescribable, match=r"the operator ghn_tests\.twice of an extension"):
            key(layer(act=torch.ops.ghn_tests.twice))
    assert key(layer(act=torch.ops.aten.relu)) != key(layer(act=torch.ops.aten.gelu))


def test_modes():
    class Mode(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            return func(*args, **(kwargs or {}))

    with Mode(), pytest.raises(Undescribable, match="a TorchFunctionMode is active"):
        key(nn.Linear(5, 7))


def test_nested_too_deeply():
    nested = []
    for _ in range(3000):
        nested = [nested]
    with pytest.raises(Undescribable, match="nested too deeply"):
        key(layer(nested=nested))


def test_a_list_that_holds_itself():
    endless = [2]
    endless.append(endless)
    assert key(layer(a=endless)) != key(layer(a=[2, [2]]))
