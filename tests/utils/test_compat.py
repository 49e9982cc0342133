"""Without a private name of torch the package still imports, traces and predicts."""

import subprocess
import sys

import pytest
from torch_geometric.data import Batch, Data

from ghn_pyg.utils.compat import set_batch_slices

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
PROGRAM = """
import importlib, os, sys, warnings
warnings.simplefilter("ignore")
import torch, torch_geometric.data, torch_geometric.nn

def missing(name):
    owner, attribute = name.rsplit(".", 1)
    delattr(importlib.import_module(owner), attribute)
    from ghn_pyg import GHN, GHNConfig, from_module
    from ghn_pyg.training import step
    from ghn_pyg.utils.compat import foreach_mul, foreach_norm
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 3), torch.nn.BatchNorm2d(5), torch.nn.ReLU(),
                                  torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(5, 7))
    assert from_module(network).node_types == ["input", "conv", "bias", "bn", "glob_avg", "conv", "bias"]
    prediction = GHN(GHNConfig(hidden_channels=8, max_channels=8, layers=1, heads=2)).predict(network)
    assert {name: value.shape for name, value in prediction.items()} == {
        name: value.shape for name, value in network.named_parameters()}
    assert foreach_norm([torch.tensor([3.0, 4.0])]).tolist() == [5]
    assert [x.tolist() for x in foreach_mul([torch.tensor([3.0])], [2.0])] == [[6]]

for name in sys.argv[1:]:
    if (child := os.fork()) == 0:
        try:
            missing(name)
        except BaseException as error:
            print(name, repr(error), flush=True)
            os._exit(1)
        os._exit(0)
    os.waitpid(child, 0)
"""


@pytest.mark.skipif(not hasattr(sys.modules["os"], "fork"), reason="needs os.fork")
def test_no_private_name_of_torch_is_needed():
    command = [sys.executable, "-c", PROGRAM, *NAMES]
    assert subprocess.run(command, check=True, timeout=300, capture_output=True, text=True).stdout == ""


def test_a_batch_without_private_dictionaries_stays_as_it_is():
    batch = Batch.from_data_list([Data(num_nodes=2), Data(num_nodes=3)])
    del batch._slice_dict
    set_batch_slices(batch, "distance", [0, 4, 13])
    assert not hasattr(batch, "_slice_dict")
