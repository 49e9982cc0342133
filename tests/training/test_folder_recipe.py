import numpy as np
import pytest
from PIL import Image

from ghn_pyg.data import ImagesError
from ghn_pyg.training import TrainConfig, load_config
from ghn_pyg.training.folder_recipe import recipe_for_folder, write_recipe


def pictures(folder, size, classes=("ant", "bee"), count=5):
    random = np.random.default_rng(3)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = random.integers(0, 128, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")


@pytest.mark.parametrize(
    ("size", "expected"), [((13, 19), 16), ((28, 28), 32), ((40, 70), 32), ((50, 50), 64), ((500, 375), 64)], ids=str
)
def test_a_recipe_fits_the_images(tmp_path, size, expected):
    pictures(tmp_path / "mine", size)
    fields = recipe_for_folder(tmp_path / "mine")
    config = TrainConfig.from_dict(fields)
    assert (config.images, config.image_size, config.ghn.num_classes) == (str(tmp_path / "mine"), expected, 2)
    assert config.batch_size == 8  # of eight images
    (red, *_), stds = config.normalization
    assert 0.2 < red < 0.3
    assert all(0.01 <= std < 0.2 for std in stds)
    write_recipe(tmp_path / "recipe.yaml", fields, "of a test")
    assert load_config(tmp_path / "recipe.yaml") == config
    assert (tmp_path / "recipe.yaml").read_text().startswith("# of a test\nghn: {hidden_channels: 64")


def test_folders_that_no_recipe_can_be_made_for(tmp_path):
    with pytest.raises(ImagesError, match=r"there is no folder .*missing"):
        recipe_for_folder(tmp_path / "missing")
    with pytest.raises(ImagesError, match="cannot read images in"):
        recipe_for_folder(tmp_path)
    pictures(tmp_path / "one", (19, 19), ["ant"])
    with pytest.raises(ImagesError, match=r"expected at least 2 classes and 2 training images .*, got 1 and 4"):
        recipe_for_folder(tmp_path / "one")


def test_damaged_images_are_named_or_skipped(tmp_path):
    pictures(tmp_path / "mine", (19, 19))
    for path in (tmp_path / "mine" / "bee").iterdir():
        path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ImagesError, match=r"cannot read .*bee/\d\.png: .*skip_damaged=true"):
        recipe_for_folder(tmp_path / "mine")
    assert recipe_for_folder(tmp_path / "mine", skip_damaged=True)["batch_size"] == 4
