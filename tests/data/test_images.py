import pytest
import torch

from ghn_pyg.data import FileImages, Images, ImagesError, TensorImages


def test_grey_images_get_three_equal_colours():
    pixels, labels = torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1, 1), torch.arange(3)
    grey = TensorImages(pixels, labels, (0.2,), (0.5,))
    images, _ = grey.batch([0, 1, 2])
    assert images.shape == (3, 3, 1, 1)
    torch.testing.assert_close(images[:, :, 0, 0], torch.tensor([[-0.4], [0], [1.6]]).expand(3, 3))
    assert torch.equal(TensorImages(pixels, labels, (0.2,) * 3, (0.5,) * 3).batch([0, 1, 2])[0], images)
    whole = Images("grey", grey, grey, 3, 1, (0.2,), (0.5,))
    assert (whole.mean, whole.std) == ((0.2,) * 3, (0.5,) * 3)


@pytest.mark.parametrize("shape", [(3, 4, 5), (3, 2, 5, 5), (3, 5, 5, 4)])
def test_pixels_of_other_shapes(shape):
    with pytest.raises(ImagesError, match=r"expected pixels of shape \(N, 3, H, W\), or \(N, 1, H, W\) for grey"):
        TensorImages(torch.zeros(shape, dtype=torch.uint8), torch.zeros(3), (0.2,), (0.5,))


def test_held_out_images_are_the_same_for_every_run():
    pixels = torch.arange(20, dtype=torch.uint8).view(20, 1, 1, 1)
    train = TensorImages(pixels, torch.arange(20), (0.0,), (1 / 255,), augment=lambda pixels: pixels + 100)
    images = Images("numbers", train, train, 20, 1, (0.0,), (1 / 255,))
    chosen = images.hold_out(0.15)
    kept, held_out = (part.batch(range(len(part)))[1].tolist() for part in (chosen.train, chosen.test))
    assert (len(kept), len(held_out)) == (17, 3)
    assert sorted(kept + held_out) == list(range(20))
    assert images.hold_out(0.15).test.batch([0, 1, 2])[1].tolist() == held_out != [0, 1, 2]
    assert chosen.test.batch([0])[0][0, 0, 0, 0].round() == held_out[0]  # without augmentation
    assert chosen.train.batch([0])[0][0, 0, 0, 0].round() == kept[0] + 100
    nothing = images.hold_out(0)
    assert (len(nothing.train), len(nothing.test)) == (20, 0)


def test_few_shots_of_each_class():
    labels = torch.tensor([0, 1, 2] * 7)
    pixels = torch.arange(21, dtype=torch.uint8).view(21, 1, 1, 1)
    train = TensorImages(pixels, labels, (0.0,), (1 / 255,))
    images = Images("numbers", train, train, 3, 1, (0.0,), (1 / 255,), classes=("a", "b", "c"))
    few = images.few_shot(5, seed=2)
    assert few.train.batch(range(15))[1].bincount().tolist() == [5, 5, 5]
    assert len(few.train.pixels.unique()) == 15
    assert torch.equal(few.train.pixels, images.few_shot(5, seed=2).train.pixels)
    assert not torch.equal(few.train.pixels, images.few_shot(5, seed=3).train.pixels)
    assert len(few.test) == 21
    with pytest.raises(ImagesError, match=r"at most the 7 training images of the class 'a', got 8"):
        images.few_shot(8)


@pytest.mark.parametrize("listed", [True, False])
def test_few_shots_of_files(listed):
    """Labels that a data set does not list are read with its images."""

    class Data:
        def __len__(self):
            return 21

        def __getitem__(self, number):
            return number, number % 3

    data = Data()
    if listed:
        data.targets = [number % 3 for number in range(21)]
    train = FileImages(data, 3, lambda number: torch.full((3, 1, 1), float(number)))
    images = Images("numbers", train, train, 3, 1, (0.0,), (1.0,)).hold_out(0.2)
    kept = {int(value) for value in images.train.batch(range(17))[0].flatten()}
    few, labels = images.few_shot(2).train.batch(range(6))
    assert labels.bincount().tolist() == [2, 2, 2]
    assert {int(value) for value in few.flatten()} < kept
    assert (few[:, 0, 0, 0] % 3).tolist() == labels.tolist()
