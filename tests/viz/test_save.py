import json
import os
import xml.etree.ElementTree as ET

import networkx as nx
import pytest

from ghn_pyg import from_module
from ghn_pyg.viz import save_view
from ghn_pyg.zoo import skeleton


@pytest.fixture(scope="module")
def resnet():
    return from_module(*skeleton("resnet18"))


def test_the_suffix_chooses_the_format(resnet, tmp_path):
    for suffix in ("graphml", "json", "svg"):
        save_view(resnet, tmp_path / f"resnet18.{suffix}", "resnet18")
    assert nx.read_graphml(tmp_path / "resnet18.graphml").graph["name"] == "resnet18"
    assert len(json.loads((tmp_path / "resnet18.json").read_bytes())["nodes"]) == 53
    assert ET.parse(tmp_path / "resnet18.svg").getroot().tag == "{http://www.w3.org/2000/svg}svg"
    assert len(os.listdir(tmp_path)) == 3


@pytest.mark.parametrize("name", ["resnet18.pdf", "resnet18", "resnet18.svg.gz"])
def test_other_suffixes_are_refused(name, resnet, tmp_path):
    with pytest.raises(ValueError, match=rf"'{name}', expected a file that ends in \.graphml, \.json, \.svg"):
        save_view(resnet, tmp_path / name)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("suffix", [".graphml", ".json", ".svg"])
def test_a_full_disk_keeps_the_old_file(suffix, resnet, tmp_path, full_disk):
    path = tmp_path / f"resnet18{suffix}"
    path.write_text("old")
    with pytest.raises(OSError, match=r"cannot write .*: No space left on device"):
        save_view(resnet, path)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == [path.name]
