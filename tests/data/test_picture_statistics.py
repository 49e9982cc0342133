import pytest
import torch
from PIL import Image

from ghn_pyg.data import load_images
from ghn_pyg.data.picture_statistics import colour_statistics, median_size


def test_sizes_and_colours_of_pictures(tmp_path):
    for label, name in enumerate(("ant", "bee")):
        for part in ("train", "val"):
            (tmp_path / part / name).mkdir(parents=True)
        Image.new("RGB", (40, 30), "black").save(tmp_path / "val" / name / "0.png")
        for number, size in enumerate([(40, 30), (60, 20), (50, 90)]):
            colour = (51, 102, 255 * label)
            Image.new("RGB", size, colour).save(tmp_path / "train" / name / f"{number}.png")
    images = load_images(tmp_path, image_size=19)
    assert median_size(images.train) == (50, 30)
    mean, std = colour_statistics(images.train, 19)
    assert mean == pytest.approx((0.2, 0.4, 0.5))
    assert std == pytest.approx((0.01, 0.01, 0.5), abs=1e-3)  # of one colour: the smallest one
    loaded = load_images(tmp_path, image_size=19, augment=False, normalization=(mean, (1.0, 1.0, 1.0)))
    torch.testing.assert_close(loaded.train.batch(range(6))[0].mean((0, 2, 3)), torch.zeros(3), atol=1e-6, rtol=0)
