import json

import numpy as np
import pytest
from ghn_pyg.families.deepnets.published_files import DatasetError, PublishedFiles, index_splits, meta_path
from hypothesis import given
from hypothesis import strategies as st

from tests.families.deepnets.published_files_for_tests import TRAIN

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=7,
)
SPLITS = st.dictionaries(
    st.text(),
    st.fixed_dictionaries({"nets": st.lists(VALUES, max_size=5), "meta": VALUES, "other": VALUES}),
    max_size=3,
)


@given(SPLITS, st.sampled_from([None, 1, "\t\r "]))
def test_positions_in_json_files(splits, indent):
    content = json.dumps(splits, indent=indent).encode()
    found = index_splits(content)
    assert list(found) == list(splits)
    assert [index.meta for index in found.values()] == [split["meta"] for split in splits.values()]
    for split, index in zip(splits.values(), found.values(), strict=True):
        pieces = [content[start:stop] for start, stop in zip(index.starts, index.stops, strict=True)]
        assert [json.loads(piece) for piece in pieces] == split["nets"]


def test_meta_and_order_of_keys():
    index = index_splits(b' {"a":{"meta" : {"x": 3},"nets":[ 5 , {"y":[7]}] },\n"b": {}} ')
    assert index["a"].meta == {"x": 3}
    assert (index["a"].starts.tolist(), index["a"].stops.tolist()) == ([34, 38], [35, 47])
    assert (index["b"].meta, index["b"].starts.tolist()) == (None, [])


@pytest.mark.parametrize(
    "content",
    [
        b"", b" ", b"3", b"[]", b"{", b'{"a"}', b'{"a":}', b'{"a": {"nets": []}', b'{"a": {"nets": {}}}', b'{"a": []}',
        b'{"a": {"nets": [3,]}}', b'{"a": {"nets": [3 5]}}', b'{"a": {"nets": [3}}', b'{"a": {},}', b"{} {}",
        b'{"a": {"nets": ' + b"[" * 100_000, b"\xef\xbb\xbf{}", b'{"a": {"nets": [\xff]}}',
    ],
)  # fmt: skip
def test_damaged_json_files(content):
    with pytest.raises(DatasetError, match=r"it is damaged or no JSON file of DeepNets-1M \("):
        index_splits(content)


def test_the_golden_files():
    with PublishedFiles(TRAIN) as files:
        index = files.index()["train"]
        assert files.counts() == {"train": 8}
        assert not files.faultless
        assert [files.arguments(index, place)["num_nodes"] for place in (0, 7)] == [149, 219]
        distances, nodes = files.arrays("train", 4)
    assert (distances.dtype, distances.shape, nodes.dtype, nodes.shape) == (np.uint8, (91, 91), np.uint16, (91, 3))
    assert distances.sum(dtype=int) == 42_040
    assert nodes[:3].tolist() == [[0, 0, 0], [1, 0, 26], [5, 0, 27]]


@pytest.mark.parametrize(
    ("name", "meta"),
    [("deepnets1m_train.hdf5", "deepnets1m_train_meta.json"), ("own.h5", "own_meta.json"), ("own", "own_meta.json")],
)
def test_names_of_json_files(name, meta, tmp_path):
    assert meta_path(tmp_path / name) == tmp_path / meta
