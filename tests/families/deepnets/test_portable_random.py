import collections

from ghn_pyg.families.deepnets import PortableRandom


def test_the_stream_is_frozen():
    random = PortableRandom(3, 5, 7)
    assert [random.randbelow(1000) for _ in range(5)] == [631, 151, 929, 762, 0]
    assert [random.randbelow(1) for _ in range(100)] == [0] * 100


def test_numbers_are_uniform():
    random = PortableRandom(0)
    counts = collections.Counter(random.randint(3, 9) for _ in range(7000))
    assert sorted(counts) == [3, 4, 5, 6, 7, 8, 9]
    assert all(900 < count < 1100 for count in counts.values())
    assert {random.choice("abc") for _ in range(100)} == {*"abc"}
    assert 900 < sum(random.bernoulli(0.2) for _ in range(5000)) < 1100
    assert all(random.bernoulli(1.0) and not random.bernoulli(0.0) for _ in range(50))
