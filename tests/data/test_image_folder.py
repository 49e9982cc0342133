import dataclasses

import pytest
import torch
from PIL import Image

from ghn_pyg.data import ImagesError, load_images
from ghn_pyg.models.trained_for import TrainedFor


def write_pictures(folder, classes, sizes=((40, 30),)):
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for number, size in enumerate(sizes):
            Image.new("RGB" if number % 2 else "L", size, 40 * label).save(folder / name / f"{number}.png")


def test_a_folder(tmp_path):
    for part in ("train", "val"):
        write_pictures(tmp_path / part, ["ant", "bee"], [(40, 30), (90, 70)])
    images = load_images(tmp_path, image_size=72)
    assert (images.num_classes, len(images.train), images.name) == (2, 4, tmp_path.name)
    batch, labels = images.test.batch([3, 0])
    assert batch.shape == images.train.batch([1, 2])[0].shape == (2, 3, 72, 72)
    assert labels.tolist() == [1, 0]


def test_faulty_folders(tmp_path):
    with pytest.raises(ImagesError, match=r"there is no folder .*missing; expected FOLDER/train/CLASS"):
        load_images(str(tmp_path / "missing"))
    with pytest.raises(ImagesError, match=r"cannot read images in .*expected FOLDER/train/CLASS"):
        load_images(tmp_path)
    write_pictures(tmp_path / "train", ["ant", "bee"])
    write_pictures(tmp_path / "test", ["ant", "cow"])
    with pytest.raises(ImagesError, match="different classes, expected the same: bee, cow"):
        load_images(tmp_path)


@pytest.mark.parametrize("root", [".", "train"])
def test_without_test_images_a_share_of_each_class_is_held_out(tmp_path, root):
    for name, count in (("ant", 5), ("bee", 13)):
        write_pictures(tmp_path / root, [name], [(19, 19)] * count)
    (tmp_path / root / ".ipynb_checkpoints").mkdir()
    images, again = load_images(tmp_path, image_size=16), load_images(tmp_path, image_size=16)
    assert images.classes == ("ant", "bee")
    assert images.train.all_labels().bincount().tolist() == [4, 10]
    assert images.test.all_labels().bincount().tolist() == [1, 3]
    chosen = [{images.train.dataset.dataset.samples[n][0] for n in part.dataset.indices}
              for part in (images.train, images.test, again.test)]  # fmt: skip
    assert chosen[0].isdisjoint(chosen[1])
    assert chosen[1] == chosen[2]
    assert images.test.augment is None


def test_one_image_of_a_class_is_for_training(tmp_path):
    write_pictures(tmp_path, ["ant"], [(19, 19)])
    with pytest.raises(ImagesError, match="has one image of each class and none to test with"):
        load_images(tmp_path)
    write_pictures(tmp_path, ["bee"], [(19, 19)] * 2)
    images = load_images(tmp_path, image_size=16)
    assert images.train.all_labels().tolist() == [0, 1]
    assert images.test.all_labels().tolist() == [1]


def test_validation_folders_by_other_names(tmp_path):
    for part in ("train", "valid"):
        write_pictures(tmp_path / part, ["ant", "bee"], [(19, 19)] * (3 if part == "train" else 2))
    images = load_images(tmp_path, image_size=16)
    assert (len(images.train), len(images.test)) == (6, 4)


def test_labels_above_the_number_of_classes(tmp_path):
    for part in ("train", "val"):
        write_pictures(tmp_path / part, ["ant", "bee"], [(40, 30)])
    images = load_images(tmp_path, image_size=8)
    assert images.test.batch([0, 1])[1].tolist() == [0, 1]
    with pytest.raises(ImagesError, match=r"expected labels from 0 to 0, got 0 to 1; give the number of classes"):
        dataclasses.replace(images.test, num_classes=1).batch([0, 1])


def test_images_without_augmentation(tmp_path):
    for part in ("train", "val"):
        write_pictures(tmp_path / part, ["ant", "bee"], [(90, 70), (80, 50)])
    images = load_images(tmp_path, image_size=64)
    expected = images.test.batch([3, 2])[0]
    assert torch.equal(images.train.plain().batch([3, 2])[0], expected)
    assert torch.equal(load_images(tmp_path, image_size=64, augment=False).train.batch([3, 2])[0], expected)
    torch.manual_seed(0)
    assert not torch.equal(images.train.batch([3, 2])[0], expected)


def test_images_as_a_ghn_was_trained_for(tmp_path):
    for part in ("train", "val"):
        write_pictures(tmp_path / part, ["ant", "bee"], [(40, 30)])
    colours = (0.25, 0.5, 0.75), (0.5, 0.25, 0.125)
    names = {"classes": ("ant", "bee"), "widths": (8,)}
    trained_for = TrainedFor(data=str(tmp_path), image_size=19, mean=colours[0], std=colours[1], **names)
    images = load_images(trained_for=trained_for)
    assert (images.name, images.source, images.classes) == (tmp_path.name, str(tmp_path), ("ant", "bee"))
    batch, _ = images.test.batch([0])  # black
    assert batch.shape == (1, 3, 19, 19)
    assert batch[0, :, 0, 0].tolist() == [-0.5, -2.0, -6.0]
    assert images.differences(trained_for) == []
    assert load_images(tmp_path, image_size=23, trained_for=trained_for).image_size == 23
    assert load_images(tmp_path).differences(trained_for.replace(classes=("ant", "cow"))) == [
        "images of 19 pixels, not of 224",
        "the normalisation (0.25, 0.5, 0.75) and (0.5, 0.25, 0.125), not (0.485, 0.456, 0.406) and "
        "(0.229, 0.224, 0.225)",
        "other classes, such as 'cow', not 'bee'",
    ]


@pytest.mark.parametrize(("size", "said"), [(19, True), (240, False)])
def test_small_images_that_are_enlarged_are_said(tmp_path, caplog, size, said):
    for part in ("train", "val"):
        write_pictures(tmp_path / part, ["ant"], [(size, 13)])
    assert load_images(tmp_path).image_size == 224
    assert load_images(tmp_path, image_size=23).image_size == 23
    assert len(caplog.messages) == said
    assert all(f"{size}×13 pixels, are enlarged to 224; give their size" in message for message in caplog.messages)


def damage(path):
    """Cuts the second half of a picture off, as an interrupted copy does."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def noisy_pictures(folder, count=3):
    for part in ("train", "val"):
        for name in ("ant", "bee"):
            (folder / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = torch.randint(256, (19, 19, 3), dtype=torch.uint8).numpy()
                Image.fromarray(pixels).save(folder / part / name / f"{number}.png")


def test_damaged_images_are_named(tmp_path):
    noisy_pictures(tmp_path)
    damage(tmp_path / "train" / "bee" / "1.png")
    (tmp_path / "val" / "ant" / "2.png").write_bytes(b"damaged")
    images = load_images(tmp_path, image_size=16)
    for part, numbers, name in ((images.train, [2, 4, 5], "bee/1.png"), (images.test, [2], "ant/2.png")):
        with pytest.raises(ImagesError, match=rf"cannot read .*{name}: .*--skip-damaged"):
            part.batch(numbers)


def test_damaged_images_are_skipped_and_counted(tmp_path, caplog):
    noisy_pictures(tmp_path)
    whole = load_images(tmp_path, image_size=16, augment=False)
    expected = whole.train.batch([0, 1, 2, 3, 5])
    damage(tmp_path / "train" / "bee" / "1.png")
    images = load_images(tmp_path, image_size=16, augment=False, skip_damaged=True)
    assert (len(images.train), len(images.test)) == (5, 6)
    assert all(map(torch.equal, images.train.batch(range(5)), expected))
    assert len(caplog.messages) == 2
    assert "bee/1.png" in caplog.messages[0]
    assert caplog.messages[1] == "skipped 1 of 6 images, which are damaged"


def test_a_path_with_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for part in ("train", "val"):
        write_pictures(tmp_path / "pictures" / part, ["ant"], [(40, 30)])
    assert load_images("~/pictures").name == "pictures"
