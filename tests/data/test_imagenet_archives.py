import io
import tarfile

import numpy as np
import pytest
import scipy.io
from PIL import Image

from ghn_pyg.data import ImagesError, imagenet_archives, load_images, unpack_imagenet

SYNSETS = ("n01440764", "n01443537", "n00001740")  # the last one has children, and no images


def jpeg(shade):
    stream = io.BytesIO()
    Image.new("RGB", (19, 13), (shade,) * 3).save(stream, "JPEG")
    return stream.getvalue()


def archive(path, members, mode="w"):
    with tarfile.open(path, mode) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, str):  # a link
                info.type, info.linkname = tarfile.SYMTYPE, content
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


def devkit(folder, truth="2\n1\n2\n", synsets=SYNSETS):
    rows = np.zeros(len(synsets), dtype=[("ILSVRC2012_ID", "O"), ("WNID", "O"), ("num_children", "O")])
    for number, name in enumerate(synsets):
        rows[number] = (number + 1, name, 2 * (number == 2))
    stream = io.BytesIO()
    scipy.io.savemat(stream, {"synsets": rows})
    members = [("devkit/data/meta.mat", stream.getvalue()),
               ("devkit/data/ILSVRC2012_validation_ground_truth.txt", truth.encode())]  # fmt: skip
    return archive(folder / imagenet_archives.DEVKIT, members, "w:gz")


def val(folder, members=()):
    images = [(f"ILSVRC2012_val_{number:08}.JPEG", jpeg(number)) for number in (2, 1, 3)]
    return archive(folder / "val.tar", [*images, *members])


def test_both_parts_are_laid_out_by_class(tmp_path):
    inner = [archive(tmp_path / f"{name}.tar", [(f"{name}_{n}.JPEG", jpeg(n)) for n in range(3)]).read_bytes()
             for name in SYNSETS[:2]]  # fmt: skip
    train = archive(tmp_path / "train.tar", [(f"{name}.tar", data) for name, data in zip(SYNSETS, inner, strict=False)])
    devkit(tmp_path)
    folder, seen = tmp_path / "imagenet", []
    assert unpack_imagenet(train, folder) == folder / "train"
    assert unpack_imagenet(val(tmp_path), folder, progress=lambda *done: seen.append(done)) == folder / "val"
    assert seen == [(1, 3), (2, 3), (3, 3)]
    found = {str(path.relative_to(folder)) for path in folder.rglob("*.JPEG")}
    assert found == {f"train/{name}/{name}_{n}.JPEG" for name in SYNSETS[:2] for n in range(3)} | {
        "val/n01443537/ILSVRC2012_val_00000001.JPEG", "val/n01440764/ILSVRC2012_val_00000002.JPEG",
        "val/n01443537/ILSVRC2012_val_00000003.JPEG",
    }  # fmt: skip
    assert sorted(path.name for path in folder.iterdir()) == ["train", "val"]
    assert load_images(folder, image_size=16).classes == SYNSETS[:2]


@pytest.mark.parametrize(
    "member",
    [("../ILSVRC2012_val_00000004.JPEG", b""), ("/tmp/ILSVRC2012_val_00000004.JPEG", b""), ("readme.txt", b""),
     ("ILSVRC2012_val_00000004.JPEG", "/etc/passwd"), ("ILSVRC2012_val_00000001.JPEG", b"")],
    ids=["above", "absolute", "name", "link", "twice"],
)  # fmt: skip
def test_a_hostile_archive_is_refused_before_anything_is_written(tmp_path, member):
    devkit(tmp_path, "2\n1\n2\n1\n")
    with pytest.raises(ImagesError, match="expected plain files with names such as"):
        unpack_imagenet(val(tmp_path, [member]), tmp_path / "imagenet")
    assert not (tmp_path / "imagenet").exists()


def test_a_hostile_class_leaves_nothing(tmp_path):
    inner = archive(tmp_path / "inner.tar", [("n01440764_1.JPEG", jpeg(1)), ("../../n01440764_2.JPEG", b"")])
    train = archive(tmp_path / "train.tar", [("n01440764.tar", inner.read_bytes())])
    with pytest.raises(ImagesError, match=r"n01440764\.tar has the member '\.\./\.\./n01440764_2\.JPEG'"):
        unpack_imagenet(train, tmp_path / "imagenet")
    assert list((tmp_path / "imagenet").iterdir()) == []


def test_an_incomplete_archive(tmp_path):
    path = val(tmp_path)
    with pytest.raises(ImagesError, match=r"there is no .*devkit_t12\.tar\.gz; give --devkit"):
        unpack_imagenet(path, tmp_path / "imagenet")
    devkit(tmp_path, "2\n1\n2\n1\n")
    with pytest.raises(ImagesError, match=r"expected the 4 validation images .* got 3"):
        unpack_imagenet(path, tmp_path / "imagenet")
    path.write_bytes(path.read_bytes()[:1000])  # within the first image
    with pytest.raises(ImagesError, match=r"cannot read .*val\.tar|got 1"):
        unpack_imagenet(path, tmp_path / "imagenet")


def test_a_hostile_devkit(tmp_path):
    devkit(tmp_path, synsets=("n01440764", "../../n01443537"))
    with pytest.raises(ImagesError, match=r"has the class '\.\./\.\./n01443537'"):
        unpack_imagenet(val(tmp_path), tmp_path / "imagenet")
    (tmp_path / imagenet_archives.DEVKIT).write_bytes(b"damaged")
    with pytest.raises(ImagesError, match=r"cannot read .*devkit"):
        unpack_imagenet(val(tmp_path), tmp_path / "imagenet")


def test_a_part_that_a_killed_process_left_is_unpacked_again(tmp_path):
    devkit(tmp_path)
    folder = tmp_path / "imagenet"
    left = folder / ".ghn-pyg-unfinished-val" / "files" / "val"
    left.mkdir(parents=True)
    (left / "ILSVRC2012_val_00000001.JPEG").write_bytes(b"half")
    unpack_imagenet(val(tmp_path), folder)
    assert len(list(folder.rglob("*.JPEG"))) == 3
    (folder / "val" / "mine.txt").touch()
    assert unpack_imagenet(val(tmp_path), folder) == folder / "val"  # as it is
    assert (folder / "val" / "mine.txt").exists()
