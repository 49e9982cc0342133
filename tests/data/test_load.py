from pathlib import Path

import pytest
from PIL import Image

from ghn_pyg.data import ImagesError, load_images


def test_a_folder_of_the_name_of_known_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()  # as by: ghn-pyg train digits --out digits
    (tmp_path / "pictures").mkdir()
    assert load_images("digits").num_classes == 10
    for folder in ("./digits", Path("digits"), "pictures"):
        with pytest.raises(ImagesError, match="cannot read images"):
            load_images(folder)


def test_the_files_of_a_class_do_not_hide_it(tmp_path, monkeypatch):
    """A second use finds the folder MNIST, where the first one put its files."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    with pytest.raises(ImagesError, match=r"torchvision\.datasets\.MNIST in the folder \."):
        load_images("MNIST", ".")
    for part in ("train", "val"):
        (tmp_path / "imagenet" / part / "ant").mkdir(parents=True)
        Image.new("L", (40, 30)).save(tmp_path / "imagenet" / part / "ant" / "0.png")
    assert load_images("imagenet", "nowhere").num_classes == 1


def test_images_need_some_size():
    with pytest.raises(ImagesError, match="image_size expected at least 4 pixels, got 3"):
        load_images("digits", image_size=3)
