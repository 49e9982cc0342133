"""Without a private name of torch the package still imports, traces and predicts."""

import importlib
import sys
import warnings

import pytest
import torch
from torch_geometric.data import Batch, Data

from ghn_pyg.utils.compat import set_batch_slices
from tests.training.tiny import start

NAMES = [
    "torch._C._are_functorch_transforms_active",
    "torch._C._functorch.get_unwrapped",
    "torch._C._functorch.is_functorch_wrapped_tensor",
    "torch._C._functorch.is_legacy_batchedtensor",
    "torch._subclasses.fake_tensor.FakeTensor",
    "torch._C._DisableTorchDispatch",
    "torch._C._len_torch_dispatch_stack",
    "torch._functorch.pyfunctorch.temporarily_clear_interpreter_stack",
    "torch.utils._python_dispatch._disable_current_modes",
    "torch._C._functorch.maybe_get_bdim",
    "torch._ops.HigherOrderOperator",
    "torch.utils._python_dispatch.TorchDispatchMode",
    "torch.utils._device._device_constructors",
    "torch._is_all_true",
    "torch._is_any_true",
    "torch._assert_async",
    "torch._nested_tensor_from_mask_left_aligned",
    "torch._grouped_mm",
    "torch._foreach_norm",
    "torch._foreach_mul",
]


def work_without(name):
    """Imports, traces and predicts without this name."""
    warnings.simplefilter("ignore")
    owner, attribute = name.rsplit(".", 1)
    delattr(importlib.import_module(owner), attribute)
    for known in [known for known in sys.modules if known.split(".")[0] == "ghn_pyg"]:
        del sys.modules[known]
    from ghn_pyg import GHN, GHNConfig, from_module
    from ghn_pyg.training import step  # noqa: F401
    from ghn_pyg.utils.compat import foreach_mul, foreach_norm

    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 5, 3), torch.nn.BatchNorm2d(5), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(), torch.nn.Linear(5, 7),
    )  # fmt: skip
    assert from_module(network).node_types == ["input", "conv", "bias", "bn", "glob_avg", "conv", "bias"]
    prediction = GHN(GHNConfig(hidden_channels=8, max_channels=8, layers=1, heads=2)).predict(network)
    assert {name: value.shape for name, value in prediction.items()} == {
        name: value.shape for name, value in network.named_parameters()
    }
    assert foreach_norm([torch.tensor([3.0, 4.0])]).tolist() == [5]
    assert [x.tolist() for x in foreach_mul([torch.tensor([3.0])], [2.0])] == [[6]]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("name", NAMES)
def test_no_private_name_of_torch_is_needed(name):
    process = start(work_without, name)
    process.join()
    assert process.exitcode == 0


def test_a_batch_without_private_dictionaries_stays_as_it_is():
    batch = Batch.from_data_list([Data(num_nodes=2), Data(num_nodes=3)])
    del batch._slice_dict
    set_batch_slices(batch, "distance", [0, 4, 13])
    assert not hasattr(batch, "_slice_dict")
