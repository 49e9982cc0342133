import copy
import pickle

import pytest
import torch
from torch import nn

from ghn_pyg import from_module
from ghn_pyg.families.deepnets import DARTS, PDARTS, SPLIT_SIZES, VIT, Architecture, Genotype, Network, sample
from ghn_pyg.families.deepnets.network import Cell
from ghn_pyg.families.deepnets.network_plan import plan_network

CONV = (("conv_3x3", 0), ("max_pool_3x3", 1))
ONE = Genotype(CONV, [2], CONV, [2])
# Step 0 is absent, step 2 is unused.
HOLES = Genotype(
    (("none", 0), ("none", 1), ("conv_1x1", 1), ("cse", 2), ("conv_3x3", 0), ("cse", 3)), [2, 3],
    (("skip_connect", 1), ("none", 0), ("max_pool_3x3", 1), ("none", 2), ("cse", 0), ("cse", 1)), [2, 3],
)  # fmt: skip


def make(genotype=ONE, cells=4, **fields):
    return Architecture(genotype=genotype, cells=cells, **fields)


def images(size=32, batch=3):
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(size))


def built(architecture, **sizes):
    torch.manual_seed(3)
    return Network(architecture, **sizes)


@pytest.mark.parametrize("size", [4, 5, 16, 29, 32, 64, 65, 90])
@pytest.mark.parametrize(
    "architecture",
    [
        make(DARTS, 4, multiplier=2),
        make(PDARTS, 3, stem_type=1, global_average=False),
        make(ONE, 5, stem_pool=True, preprocess=False, global_average=False, norm=None, stem_kernel=7),
        make(VIT, 2, preprocess=False, classifier_layers=2),
        make(HOLES, 6, stem_type=1, imagenet_stride=2),
    ],
)
def test_images_of_any_size(architecture, size):
    out = built(architecture, num_classes=7, image_size=size, width=8, hidden=11)(images(size, batch=5))
    assert out.shape == (5, 7)
    assert out.isfinite().all()


def test_the_inputs_of_the_first_cell():
    network = built(make(stem_type=1), width=8)
    seen = []
    network.cells[0].register_forward_pre_hook(lambda _, states: seen.extend(states))
    network(images())
    assert [tuple(state.shape) for state in seen] == [(3, 8, 32, 32), (3, 8, 16, 16)]
    torch.testing.assert_close(network.stem1(seen[0]), seen[1])


def test_reduction_cells_halve_the_size_and_multiply_the_width():
    network, shapes = built(make(DARTS, 6, multiplier=3), width=4), []
    for cell in network.cells:
        cell.register_forward_hook(lambda _, __, out: shapes.append(tuple(out.shape[1:])))
    network(images())
    assert shapes == [(16, 32, 32), (16, 32, 32), (48, 16, 16), (48, 16, 16), (144, 8, 8), (144, 8, 8)]


def test_a_step_is_the_sum_of_its_branches():
    branches = (("skip_connect", 0), ("skip_connect", 1), ("skip_connect", 2), ("none", 0), ("skip_connect", 3),
                ("skip_connect", 0))  # fmt: skip
    plan = plan_network(make(Genotype(branches, [4, 2], branches, [4, 2]), 1), width=8).cells[0]
    cell = Cell(plan, meta=False)
    cell.preprocess0 = cell.preprocess1 = nn.Identity()
    before, last = images(7).double(), images(11).double()[..., :7, :7]
    torch.testing.assert_close(cell(before, last), torch.cat([2 * before + last, before + last], 1))


def test_absent_steps_count_as_zeros():
    plan = plan_network(make(HOLES, 1), width=8).cells[0]
    cell = Cell(plan, meta=False)
    out = cell(torch.rand(2, 24, 5, 5), torch.rand(2, 24, 5, 5))
    assert out.shape == (2, 16, 5, 5)
    assert not out[:, :8].any()
    assert out[:, 8:].any()


def test_unused_operations_are_not_computed():
    network = built(make(HOLES, 6, stem_type=1), width=8)
    network(images()).logsumexp(1).sum().backward()
    unused = {name for name, parameter in network.named_parameters() if parameter.grad is None}
    assert unused == set(from_module(network).kept)
    assert {"cells.0._ops.3.fc1.weight", "cells.0._ops.4.op.1.weight", "cells.2._ops.4.fc1.weight"} <= unused
    assert "cells.0._ops.2.op.1.weight" not in unused


def test_the_auxiliary_classifier_in_training():
    network = built(make(DARTS, 4), num_classes=7, width=4, auxiliary=True)
    main, second = network(images())
    assert main.shape == second.shape == (3, 7)
    assert network.eval()(images()).shape == (3, 7)
    second.sum().backward()
    assert network.auxiliary_head[2].weight.grad is not None
    assert network.cells[2].preprocess1.op[1].weight.grad is not None
    assert network.cells[3].preprocess1.op[1].weight.grad is None
    assert built(make(DARTS, 4), width=4)(images()).shape == (3, 10)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))])  # noqa: S301
def test_networks_can_be_copied(duplicate):
    network = built(make(HOLES), width=8).eval()
    torch.testing.assert_close(duplicate(network)(images()), network(images()), rtol=0, atol=0)


@pytest.mark.parametrize("architecture", [make(HOLES, 5, stem_type=1), make(VIT, 2, preprocess=False)])
def test_on_the_meta_device(architecture):
    with torch.device("meta"):
        network = Network(architecture, width=16, auxiliary=True)
    real = built(architecture, width=16, auxiliary=True)
    assert repr(network) == repr(real)
    assert all(parameter.is_meta for parameter in network.parameters())
    assert list(network.state_dict()) == list(real.state_dict())
    network.to_empty(device="cpu").load_state_dict(real.state_dict())
    torch.testing.assert_close(network.eval()(images()), real.eval()(images()), rtol=0, atol=0)


@pytest.mark.parametrize("size", [16, 32])
@pytest.mark.parametrize("split", SPLIT_SIZES)
def test_sampled_networks_learn(split, size):
    for index in (3, 5):
        network = built(sample(split, index), image_size=size, width=8, hidden=16)
        out = network(images(size, batch=2))
        assert out.isfinite().all()
        out.logsumexp(1).sum().backward()
        kept = from_module(network).kept
        for name, parameter in network.named_parameters():
            assert (parameter.grad is None) == (name in kept)
            assert name in kept or parameter.grad.isfinite().all()
