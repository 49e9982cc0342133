"""The golden DeepNets-1M files, and small files of the same format to damage."""

import contextlib
import functools
import gzip
import json

import h5py
import pytest

from ghn_pyg import GHN, GHNConfig
from ghn_pyg.families.deepnets import Architecture, Genotype, export
from ghn_pyg.families.deepnets.published_json import meta_path
from ghn_pyg.models.checkpoints.published_keys import from_published
from tests.golden import FOLDER, STATE_DICT_SHAPES, seeded_state_dict

TRAIN = FOLDER / "deepnets" / "deepnets1m_train.hdf5"
EXPECTED = json.loads(gzip.decompress((FOLDER / "deepnets" / "expected_train.json.gz").read_bytes()))


def cells(normal, reduce, concat=(2,)):
    return Genotype(normal, concat, reduce, concat)


ATTENTION = Architecture(
    genotype=cells([("msa", 0), ("conv_1x1", 1)], [("max_pool_3x3", 0), ("skip_connect", 1)]), cells=3, width=16
)
SEPARABLE = Architecture(
    genotype=cells([("sep_conv_3x3", 0), ("cse", 1)], [("dil_conv_5x5", 0), ("skip_connect", 1)]), cells=4, width=16,
    stem_type=1, classifier_layers=2, hidden=11,
)  # fmt: skip
NONE = Architecture(
    genotype=cells(
        [("none", 0), ("conv_3x3", 1), ("conv_7x1_1x7", 2), ("avg_pool_3x3", 1)],
        [("none", 0), ("max_pool_3x3", 1), ("none", 0), ("skip_connect", 2)],
        concat=(2, 3),
    ),
    cells=5, width=8, multiplier=2, stem_pool=True, global_average=False,
)  # fmt: skip
NORMLESS = Architecture(
    genotype=cells([("conv_5x5", 0), ("conv_1x1", 1)], [("skip_connect", 0), ("conv_3x3", 1)]), cells=1, width=8,
    stem_type=1, norm=None, preprocess=False,
)  # fmt: skip
ALL = (ATTENTION, SEPARABLE, NONE, NORMLESS)


@functools.cache
def seeded_t10():
    """The GHN for CIFAR-10 that the golden predictions come from."""
    ghn = GHN(GHNConfig.preset("ghn3tm8", num_classes=10, max_kernel_size=11))
    ghn.load_state_dict(from_published(seeded_state_dict(STATE_DICT_SHAPES["T10"])))
    return ghn.eval()


def small_file(folder, *architectures, split="val"):
    """A file of a few small architectures."""
    path = folder / "small.hdf5"
    export({split: architectures or ALL}, path)
    return path


@contextlib.contextmanager
def edited_meta(path):
    """Edits the content of a JSON file."""
    content = json.loads(meta_path(path).read_text())
    yield content
    meta_path(path).write_text(json.dumps(content))


def replace_array(path, name, change):
    """Replaces an array of an HDF5 file by ``change(array)``, or removes it for ``None``."""
    with h5py.File(path, "r+") as file:
        values = change(file[name][()])
        del file[name]
        if values is not None:
            file[name] = values


@contextlib.contextmanager
def file_size_limit(size):
    """Files cannot grow beyond ``size`` bytes, as on a full disk."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
