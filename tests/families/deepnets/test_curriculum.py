import pytest

from ghn_pyg.families.deepnets import Curriculum, MetaBatches, sample
from ghn_pyg.families.deepnets.architecture_sampling import is_valid


def test_limits():
    curriculum = Curriculum(90)
    assert [curriculum.limit(step) for step in (0, 21, 22, 43, 44, 68, 69, 89)] == [1, 1, 2, 3, 4, 8, 9, 17]


def test_networks_grow():
    curriculum = Curriculum(90)
    for index in (*range(300), 2284):  # the last one has no global average
        whole = sample("train", index)
        for step in (0, 31, 89, 90, 10**6):
            one = curriculum.apply(whole, step)
            assert one.cells <= whole.cells
            assert is_valid(one, "train")
            if step >= 90:
                assert one is whole
    small = [curriculum.apply(sample("train", index), 0).cells for index in range(300)]
    assert sum(cells <= 3 for cells in small) > 250


def test_networks_within_the_limit_stay():
    whole = sample("train", 0)
    assert whole.cells == 13
    assert Curriculum(90).apply(whole, 83) is whole  # 14 cells


def test_meta_batches():
    plain, growing = MetaBatches(5, seed=3), MetaBatches(5, seed=3, curriculum=Curriculum(7))
    assert [one.cells for one in growing.architectures(0)] != [one.cells for one in plain.architectures(0)]
    assert max(one.cells for one in growing.architectures(0)) <= 3
    assert growing.architectures(7) == plain.architectures(7)
    for one, other in zip(growing.architectures(0), plain.architectures(0), strict=True):
        assert one.genotype == other.genotype


def test_no_curriculum():
    assert Curriculum().apply(sample("train", 1), 0) == sample("train", 1)
    with pytest.raises(ValueError, match="steps expected at least 0, got -1"):
        Curriculum(-1)
