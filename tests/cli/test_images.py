from ghn_pyg.data.imagenet_archives import DEVKIT
from tests.cli.outcomes import failed
from tests.data.test_imagenet_archives import devkit, val


def test_imagenet_is_unpacked(run, tmp_path):
    devkit(tmp_path)
    archive, folder = val(tmp_path), tmp_path / "imagenet"
    assert run("images", "imagenet", archive, folder) == (0, [f"{folder}/val: 2 classes"], "")
    archive.rename(tmp_path / "ILSVRC2012_img_val.tar")
    assert run("images", "imagenet", tmp_path, tmp_path / "again")[1] == [f"{tmp_path}/again/val: 2 classes"]
    assert len(list(folder.rglob("*.JPEG"))) == 3


def test_faulty_archives(run, tmp_path):
    folder = tmp_path / "imagenet"
    assert "neither ILSVRC2012_img_train.tar nor" in failed(run("images", "imagenet", tmp_path, folder))
    assert "No such file" in failed(run("images", "imagenet", tmp_path / "missing.tar", folder))
    archive = val(tmp_path)
    assert f"there is no {tmp_path}/{DEVKIT}; give --devkit" in failed(run("images", "imagenet", archive, folder))
    archive.write_bytes(b"damaged")
    assert "expected a .tar archive of ImageNet" in failed(run("images", "imagenet", archive, folder))
    assert not folder.exists()
