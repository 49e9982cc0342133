import itertools

import pytest
import torch
from PIL import Image

from ghn_pyg.data import shift_and_mirror
from ghn_pyg.data.augmentation import picture_transforms


def test_images_are_shifted_and_mirrored():
    """Each image is one of the windows of the padded image, or its mirror image."""
    torch.manual_seed(3)
    pixels = torch.arange(1, 2 * 3 * 17 * 19 + 1).view(2, 3, 17, 19)
    padded = torch.nn.functional.pad(pixels, [2] * 4)
    seen = set()
    for _ in range(40):
        for image, result in enumerate(shift_and_mirror(pixels)):
            windows = padded[image].unfold(1, 17, 1).unfold(2, 19, 1)
            matches = {
                (top, left, mirrored)
                for top, left, mirrored in itertools.product(range(5), range(5), (False, True))
                if torch.equal(result, windows[:, top, left].flip(2) if mirrored else windows[:, top, left])
            }
            assert len(matches) == 1
            seen |= matches
    assert len({top for top, _, _ in seen}) == len({left for _, left, _ in seen}) == 5
    assert {mirrored for _, _, mirrored in seen} == {False, True}


@pytest.mark.parametrize(("size", "shorter"), [(224, 256), (299, 342)])  # 299 is for Inception
def test_large_images_are_cut_from_the_published_size(size, shorter):
    picture = Image.linear_gradient("L").resize((shorter, shorter)).transpose(Image.Transpose.ROTATE_90)
    transform, _ = picture_transforms(size, (0.0,) * 3, (1.0,) * 3)
    image = transform(picture)
    before = round((shorter - size) / 2)
    assert image.shape == (3, size, size)
    expected = torch.tensor([picture.getpixel((column, 7)) / 255 for column in range(before, before + size)])
    torch.testing.assert_close(image[0, 5], expected)
