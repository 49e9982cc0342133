import argparse
import contextlib
import functools
import os
import pickle
import struct
import types
import zlib
from collections import Counter, OrderedDict

import joblib
import numpy
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ghn_pyg import CheckpointError
from ghn_pyg.models.checkpoints import read_checkpoint
from ghn_pyg.utils.pickle_reader import read_pickle
from tests.models.checkpoints.checkpoint_files import TINY, published_state
from tests.models.checkpoints.pickle_attacks import ATTACKS, Call, attacks, save_legacy, torch_file


@pytest.mark.parametrize("name", [name for name in ATTACKS if name not in ("open", "getattr")])
def test_the_attacks_work_on_an_ordinary_unpickler(name, tmp_path):
    attack = pickle.dumps({"ln.weight": attacks(tmp_path / "marker")[name]})
    # What an attack returns may fail to become a tensor; by then it has run.
    with contextlib.suppress(Exception):
        pickle.loads(attack)  # noqa: S301 - shows that the tests below could fail
    assert (tmp_path / "marker").exists()


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_in_a_pickle_runs(name, protocol, tmp_path):
    attack = {"ln.weight": torch.ones(2), "ln.bias": attacks(tmp_path / "marker")[name]}
    (tmp_path / "ghn.pt").write_bytes(pickle.dumps(attack, protocol))
    with pytest.raises(CheckpointError):
        read_checkpoint(tmp_path / "ghn.pt")
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize(
    "write",
    [
        joblib.dump,
        functools.partial(joblib.dump, compress=3),
        functools.partial(joblib.dump, compress=("gzip", 3)),
        torch.save,
        save_legacy,
    ],
    ids=["joblib", "zlib", "gzip", "torch", "torch legacy"],
)
@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("place", ["top", "value", "args", "key"])
def test_nothing_in_a_file_runs(name, write, place, tmp_path):
    attack = attacks(tmp_path / "marker")[name]
    content = {
        "top": attack,
        "value": {**published_state(TINY), "extra": attack},
        "args": {"state_dict": published_state(TINY), "args": argparse.Namespace(name=attack)},
        "key": {attack: 1},
    }[place]
    write(content, tmp_path / "ghn.pt")
    with pytest.raises(CheckpointError):
        read_checkpoint(tmp_path / "ghn.pt")
    assert not (tmp_path / "marker").exists()


def test_refusals_name_what_the_file_asks_for(tmp_path):
    joblib.dump({"ln.weight": Call(os.system, "true")}, tmp_path / "ghn.pt")
    with pytest.raises(CheckpointError, match=rf"the file asks for {os.system.__module__}\.system, which no"):
        read_checkpoint(tmp_path / "ghn.pt")


@pytest.mark.parametrize(
    "value",
    [numpy.ones(3), numpy.float64(1.0), Counter("a"), torch.nn.Linear(2, 3), {1, 2}, 2**3000],
    ids=lambda value: type(value).__name__,
)
def test_values_that_no_state_dict_holds_are_refused(value, tmp_path):
    joblib.dump({"ln.weight": value}, tmp_path / "ghn.pt")
    with pytest.raises(pickle.UnpicklingError, match=r"(which|that) no checkpoint needs"):
        read_pickle(tmp_path / "ghn.pt")


def test_plain_values_are_read(tmp_path):
    content = OrderedDict(a=[1, -1, 300, 70000, 2**40, True, False, None], b=("x", (1,), (1, 2), (), 0.5), c={3: {}})
    joblib.dump(content, tmp_path / "plain")
    assert read_pickle(tmp_path / "plain") == dict(content)
    joblib.dump(content, tmp_path / "plain", protocol=2)
    assert read_pickle(tmp_path / "plain") == dict(content)


# --- pickles written by hand ---------------------------------------------------------------------------------------


def text(value):
    return b"\x8c" + bytes([len(value)]) + value.encode()


def function(module, name):
    return text(module) + text(name) + b"\x93"


REBUILD = function("torch._utils", "_rebuild_tensor_v2")
FROM_BYTES = function("torch.storage", "_load_from_bytes")


def data(value):
    return b"B" + struct.pack("<I", len(value)) + value


def integer(value):
    body = value.to_bytes((value.bit_length() + 8) // 8, "little", signed=True)
    return b"\x8a" + bytes([len(body)]) + body


def sizes(*values):
    return b"(" + b"".join(integer(value) for value in values) + b"t"


def storage(count=6):
    typed = torch.storage.TypedStorage(
        wrap_storage=torch.ones(count).untyped_storage(), dtype=torch.float32, _internal=True
    )
    return FROM_BYTES + data(torch_file(typed, legacy=True)) + b"\x85R"


def tensor(offset, size, stride):
    return REBUILD + b"(" + storage() + integer(offset) + sizes(*size) + sizes(*stride) + b"\x89}tR"


def load(body, tmp_path):
    (tmp_path / "ghn.pt").write_bytes(b"\x80\x04" + body + b".")
    return read_pickle(tmp_path / "ghn.pt")


def test_hand_written_tensors_are_understood(tmp_path):
    value = load(tensor(1, (2, 2), (2, 1)), tmp_path)
    assert value.tolist() == [[1, 1], [1, 1]]
    assert value.stride() == (2, 1)


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (0, (7,), (1,)),
        (1, (6,), (1,)),
        (0, (2, 2), (5, 1)),
        (0, (10**12,), (0,)),
        (0, (10**12,), (1,)),
        (0, (2**63,), (1,)),
        (0, (2**32, 2**32), (0, 0)),
        (0, (-1, -(10**12)), (0, 0)),
        (-1, (2,), (1,)),
        (2**70, (2,), (1,)),
        (5, (2,), (-1,)),
        (0, (2,), (1, 1)),
    ],
)
def test_tensors_that_do_not_lie_in_their_storage(offset, size, stride, tmp_path):
    with pytest.raises((pickle.UnpicklingError, RuntimeError, ValueError)):
        load(tensor(offset, size, stride), tmp_path)
    with pytest.raises(CheckpointError):
        read_checkpoint(tmp_path / "ghn.pt")


HOSTILE = {
    "a tensor of no storage": REBUILD + b"(" + b"N" + integer(0) + sizes(1) + sizes(1) + b"\x89}tR",
    "a tensor of a function": REBUILD + b"(" + REBUILD + integer(0) + sizes(1) + sizes(1) + b"\x89}tR",
    "a tensor with too few arguments": REBUILD + b")R",
    "a tensor with sizes that are text": REBUILD + b"(" + storage() + integer(0) + text("ab") + text("ab") + b"\x89}tR",
    "a parameter of nothing": function("torch._utils", "_rebuild_parameter") + b"N\x85R",
    "a storage of text": FROM_BYTES + text("abc") + b"\x85R",
    "a storage of a tensor": FROM_BYTES + data(torch_file(torch.ones(2), legacy=False)) + b"\x85R",
    "a call of text": text("os.system") + b")R",
    "a call with a list": function("collections", "OrderedDict") + b"]R",
    "a dictionary with arguments": function("collections", "OrderedDict") + text("a") + b"\x85R",
    "a path within a module": function("torch.storage", "_load_from_bytes.__globals__"),
    "a name that is no text": b"]" + text("eval") + b"\x93",
    "a name that prints for ever": b"N" + b"q\x00h\x00\x86" * 200 + text("eval") + b"\x93",
    "a tensor of many dimensions": tensor(0, (1,) * 9, (1,) * 9),
    "a builtin": function("builtins", "eval"),
    "an old global": b"cos\nsystem\n",
    "an old global without an end": b"cos\nsys",
    "an instance": b"(ios\nsystem\n",
    "a new object": function("collections", "OrderedDict") + b")\x81",
    "an extension": b"\x82\x01",
    "a persistent id": b"K\x01Q",
    "an appended text": text("a") + text("b") + b"a",
    "a filled list": b"]K\x00K\x01s",
    "an odd dictionary": b"}(K\x00u",
    "a nested key": b"}" + b")" + b"\x85" * 100_000 + b"Ns",
    "a tuple of too few": b"K\x01\x87",
    "an unknown memory": b"h\x07",
    "no mark": b"K\x01t",
    "an empty stack": b"",
    "a truncated number": b"J\x00",
    "a huge text": b"X\xff\xff\xff\xffabc",
    "huge bytes": b"\x8e" + struct.pack("<Q", 2**62) + b"abc",
    "huge bytes that pass for a length": b"B" + struct.pack("<I", 2**32 - 1) + b"abc",
    "no instruction": b"\xff",
    "invalid text": b"\x8c\x02\xff\xfe",
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_pickles(body, tmp_path):
    (tmp_path / "ghn.pt").write_bytes(b"\x80\x04" + body + b".")
    with pytest.raises(CheckpointError, match=r"cannot load .*ghn\.pt"):
        read_checkpoint(tmp_path / "ghn.pt")


def test_a_namespace_becomes_an_empty_dictionary(tmp_path):
    joblib.dump({"args": argparse.Namespace(a=1), "epoch": 3}, tmp_path / "ghn.pt")
    assert read_pickle(tmp_path / "ghn.pt") == {"args": {}, "epoch": 3}


def test_attributes_reach_no_function(tmp_path):
    code = REBUILD + b"N}" + text("__defaults__") + b")s\x86b"
    value = load(code, tmp_path)
    assert isinstance(value, types.FunctionType)
    assert value.__defaults__ is None
    assert load(tensor(0, (2,), (1,)), tmp_path).tolist() == [1, 1]


def test_a_large_memo_index_takes_no_memory(tmp_path):
    assert load(b"K\x07r\xff\xff\xff\xff", tmp_path) == 7


@pytest.mark.parametrize("compress", [zlib.compress, lambda text: zlib.compress(zlib.compress(text))])
def test_a_file_that_inflates_beyond_reason(compress, tmp_path):
    bomb = b"\x80\x04X" + struct.pack("<I", 1 << 27) + b"a" * (1 << 27) + b"."
    (tmp_path / "ghn.pt").write_bytes(compress(bomb))
    with pytest.raises(CheckpointError):
        read_checkpoint(tmp_path / "ghn.pt")


def test_a_file_of_zeros_may_inflate_a_lot(tmp_path):
    joblib.dump({"a": torch.zeros(1 << 18)}, tmp_path / "zeros", compress=9)
    assert (tmp_path / "zeros").stat().st_size < 1 << 13
    assert read_pickle(tmp_path / "zeros")["a"].shape == (1 << 18,)


def test_a_large_compressed_file(tmp_path):
    values = torch.rand(9_000_011)  # 36 MB, of which little is saved
    joblib.dump({"a": values}, tmp_path / "large", compress=1)
    assert (tmp_path / "large").stat().st_size > 30e6
    assert torch.equal(read_pickle(tmp_path / "large")["a"], values)


@pytest.mark.parametrize("compress", [0, ("zlib", 1), ("gzip", 1)])
def test_bytes_after_the_end_and_a_wrong_checksum(compress, tmp_path):
    joblib.dump(published_state(TINY), tmp_path / "ghn.pt", compress=compress)
    content = (tmp_path / "ghn.pt").read_bytes()
    for damaged in (content + b"more", *([content[:-4] + b"\0\1\2\3"] if compress else [])):
        (tmp_path / "ghn.pt").write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"has bytes after its end|incorrect"):
            read_checkpoint(tmp_path / "ghn.pt")


def test_nested_keys_of_a_storage_that_would_overflow_the_stack(tmp_path):
    nested = b"\x80\x02})" + b"\x85" * 500_000 + b"Ns."
    legacy = torch_file({}, legacy=True).replace(b"\x80\x02}q\x00.\x80\x02]", nested + b"\x80\x02]")
    with pytest.raises(pickle.UnpicklingError, match="more instructions"):
        load(FROM_BYTES + data(legacy) + b"\x85R", tmp_path)


@pytest.mark.parametrize("save", [joblib.dump, torch.save, save_legacy, safetensors.torch.save_file])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=5))
def test_damage_anywhere_ends_in_one_error(save, changes, tmp_path):
    path = tmp_path / "ghn.pt"
    save({"ln.weight": torch.ones(3), "embed.weight": torch.ones(2, 3)}, path)
    content = bytearray(path.read_bytes())
    for place, value in changes:
        content[int(place * len(content))] = value
    path.write_bytes(content)
    with pytest.raises(CheckpointError):  # damaged or not, it lacks most tensors
        read_checkpoint(path)
