"""Former names of modules warn at the line of the import, and give today's modules."""

import pickle
import subprocess
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
    run = subprocess.run([sys.executable, "-W", "default", script], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert [line for line in run.stderr.splitlines() if "DeprecationWarning" in line] == [
        f"{script}:{number}: DeprecationWarning: ghn_pyg.{old} is deprecated; import ghn_pyg.{new} instead"
        for number, (old, new) in enumerate(NAMES.items(), 3)
    ]


def test_a_pickle_with_a_former_name_is_loaded():
    from ghn_pyg.data.augmentation import shift_and_mirror

    content = pickle.dumps(shift_and_mirror, protocol=0).replace(b"ghn_pyg.data.augmentation", b"ghn_pyg.images")
    sys.modules.pop("ghn_pyg.images", None)
    with pytest.warns(DeprecationWarning, match=r"import ghn_pyg\.data"):
        assert pickle.loads(content) is shift_and_mirror  # noqa: S301
