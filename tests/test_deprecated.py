"""Former names of modules warn at the line of the import, and give today's modules."""

import pickle
import runpy
import sys

import pytest

NAMES = {
    "deepnets": "families.deepnets",
    "images": "data",
    "networks.building": "zoo.build",
    "small_inputs": "zoo.small_images",
}


def test_a_former_name_warns_at_the_import_and_gives_todays_module(tmp_path):
    lines = ["import sys", "import ghn_pyg", *(f"import ghn_pyg.{old}" for old in NAMES)]
    lines += [f"assert ghn_pyg.{old} is sys.modules['ghn_pyg.{new}']" for old, new in NAMES.items()]
    script = tmp_path / "script.py"
    script.write_text("\n".join(lines))
    for old in NAMES:
        sys.modules.pop(f"ghn_pyg.{old}", None)
    with pytest.warns(DeprecationWarning, match="is deprecated") as warned:
        runpy.run_path(str(script))
    assert [(one.filename, one.lineno, str(one.message)) for one in warned] == [
        (str(script), number, f"ghn_pyg.{old} is deprecated; import ghn_pyg.{new} instead")
        for number, (old, new) in enumerate(NAMES.items(), 3)
    ]


def test_a_pickle_with_a_former_name_is_loaded():
    from ghn_pyg.data.augmentation import shift_and_mirror

    content = pickle.dumps(shift_and_mirror, protocol=0).replace(b"ghn_pyg.data.augmentation", b"ghn_pyg.images")
    sys.modules.pop("ghn_pyg.images", None)
    with pytest.warns(DeprecationWarning, match=r"import ghn_pyg\.data"):
        assert pickle.loads(content) is shift_and_mirror  # noqa: S301
