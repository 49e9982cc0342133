import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ghn_pyg.families.deepnets.published_json import index_splits

OBJECTS = st.dictionaries(
    st.text(),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=7,
    ),
    max_size=3,
)
SPLITS = st.dictionaries(
    st.from_regex(r"[\w-]+", fullmatch=True, alphabet=st.characters(codec="ascii")),
    st.tuples(st.lists(OBJECTS, max_size=5), OBJECTS).map(lambda pair: {"nets": pair[0], "meta": pair[1]}),
    max_size=3,
)


@given(SPLITS.filter(bool), st.sampled_from([None, 1, "\t\r "]))
def test_offsets(splits, indent):
    content = json.dumps(splits, indent=indent).encode()
    indices = index_splits(content)
    assert list(indices) == list(splits)
    assert [index.meta for index in indices.values()] == [split["meta"] for split in splits.values()]
    for split, index in zip(splits.values(), indices.values(), strict=True):
        pieces = [content[start:stop] for start, stop in zip(index.starts, index.stops, strict=True)]
        assert [json.loads(piece) for piece in pieces] == split["nets"]


@pytest.mark.parametrize(
    "content",
    [
        b"", b" ", b"3", b"[]", b"{", b'{"a"}', b'{"a":}', b'{"a": {"nets": []}', b'{"a": {"nets": {}}}', b'{"a": []}',
        b'{"a": {"nets": [3]}}', b'{"a": {"nets": [{}}}', b'{"a": {"nets": [], "meta": 3},}', b"{} {}",
        b'{"a": {"nets": [], "meta": }}', b"\xef\xbb\xbf{}", b'{"a": {"nets": [\xff]}}',
    ],
)  # fmt: skip
def test_damaged_files(content):
    with pytest.raises(ValueError, match=r"expected \{split|ascii|Expecting"):
        index_splits(content)
