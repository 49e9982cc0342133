import itertools

import pytest
import torch
from torch.utils.data import DataLoader

from ghn_pyg.data import TensorImages, shift_and_mirror
from ghn_pyg.training.image_batches import ImageBatches


def numbered(count, augment=None):
    """Image i has label i."""
    pixels = torch.randint(256, (count, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    return TensorImages(pixels, torch.arange(count), (0.0,) * 3, (1.0,) * 3, augment)


def test_an_epoch_takes_each_image_once():
    batches = ImageBatches(numbered(23), 5, seed=3)
    assert batches.steps_per_epoch == 4
    epochs = [
        list(itertools.chain(*(batches.image_numbers(step) for step in range(first, first + 4)))) for first in (0, 4)
    ]
    for epoch in epochs:
        assert len(set(epoch)) == 20
    assert epochs[0] != epochs[1]
    assert epochs[0] != sorted(epochs[0])


def test_a_step_is_a_function_of_its_number():
    first, second = (ImageBatches(numbered(23, shift_and_mirror), 5, seed=3) for _ in range(2))
    images, labels = first.batch(6)
    first.batch(11)
    for other in (first.batch(6), second.batch(6), next(iter(ImageBatches(first.images, 5, seed=3, first_step=6)))):
        assert torch.equal(other[0], images)
        assert torch.equal(other[1], labels)
    assert labels.tolist() == first.image_numbers(6)
    assert labels.tolist() != ImageBatches(numbered(23), 5, seed=4).batch(6)[1].tolist()


def test_literal_order():
    """The same on every machine and with every version: a change here breaks the resuming of runs."""
    assert ImageBatches(numbered(23), 5, seed=3).image_numbers(6) == [17, 19, 15, 13, 16]


def test_ranks_read_parts_of_the_batch_that_one_reads():
    images = numbered(23, shift_and_mirror)
    joint = ImageBatches(images, 6, seed=3).batch(7)
    parts = [ImageBatches(images, 6, seed=3, rank=rank, world_size=3).batch(7) for rank in range(3)]
    for whole, shares in zip(joint, zip(*parts, strict=True), strict=True):
        assert [len(share) for share in shares] == [2, 2, 2]
        assert torch.equal(torch.cat(shares), whole)


def test_the_global_generator_stays():
    state = torch.get_rng_state()
    ImageBatches(numbered(23, shift_and_mirror), 5).batch(0)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_change_nothing(workers):
    batches = ImageBatches(numbered(23, shift_and_mirror), 5, seed=3, first_step=2)
    loader = DataLoader(batches, batch_size=None, num_workers=workers)
    for step, (images, labels) in zip(range(2, 6), loader, strict=False):
        assert labels.tolist() == batches.image_numbers(step)
        assert torch.equal(images, batches.batch(step)[0])


def test_impossible_batch_sizes():
    with pytest.raises(ValueError, match="batch_size must be a multiple of the 3 processes, got 5"):
        ImageBatches(numbered(23), 5, world_size=3)
    with pytest.raises(ValueError, match="batch_size must not exceed the 23 training images, got 29"):
        ImageBatches(numbered(23), 29)
