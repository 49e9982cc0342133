import warnings

import pytest

from ghn_pyg.zoo import classification_models
from ghn_pyg.zoo.torchvision_models import build, check_name, names


def test_names():
    classifiers = classification_models()
    assert len(classifiers) >= 80
    assert classifiers == sorted(classifiers)
    others = {"fcn_resnet50", "maskrcnn_resnet50_fpn", "r3d_18", "quantized_resnet18", "raft_small"}
    assert not others & set(classifiers)
    assert others | set(classifiers) <= set(names())


@pytest.mark.parametrize(("name", "heads"), [("googlenet", ["aux1", "aux2"]), ("inception_v3", ["AuxLogits"])])
def test_auxiliary_heads_are_built_without_a_warning(name, heads):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        network = build(name)
    assert all(getattr(network, head) is not None for head in heads)


def test_networks_for_other_tasks_are_no_classification_networks():
    with pytest.raises(ValueError, match="no classification network 'fcn_resnet50'"):
        check_name("fcn_resnet50")
