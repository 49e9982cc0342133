import pytest
import torch

from ghn_pyg.data import Images, ImagesError, TensorImages


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
