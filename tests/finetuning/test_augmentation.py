import dataclasses

import torch

from ghn_pyg.finetuning import FitConfig
from ghn_pyg.finetuning.augmentation import AugmentedImages, cutout
from tests.training.tiny import digits


def test_cutout():
    torch.manual_seed(3)
    images = cutout(torch.ones(2000, 3, 7, 11), 4)
    assert set(images.unique().tolist()) == {0, 1}
    assert (images == images[:, :1]).all()
    holes = images[:, 0] == 0
    assert holes.flatten(1).any(1).all()
    assert holes.flatten(1).sum(1).max() == 16
    rows, columns = holes.any(2), holes.any(1)
    assert torch.equal(holes, rows.unsqueeze(2) & columns.unsqueeze(1))
    assert rows.sum(1).unique().tolist() == columns.sum(1).unique().tolist() == [2, 3, 4]
    assert holes.any(0).all()  # also the corners
    centre = holes.float().mean(0)[3, 5].item()
    assert 0.8 * 16 / 77 < centre < 1.2 * 16 / 77
    assert (cutout(torch.ones(5, 3, 7, 7), 99) == 0).all()


def test_training_images_alone_are_changed():
    images = dataclasses.replace(digits(7))
    plain, labels = images.train.batch(range(7))
    augmented = AugmentedImages(images, FitConfig(cutout=3))
    changed, same = augmented.batch(range(7))
    assert len(augmented) == 7
    assert torch.equal(same, labels)
    assert torch.equal(changed[changed != 0], plain[changed != 0])
    assert not torch.equal(changed, plain)
    assert torch.equal(images.train.batch(range(7))[0], plain)
