"""A training loop of one's own, in one process and in two, which gloo connects."""

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from ghn_pyg import GHN
from ghn_pyg.families.deepnets.meta_batches import MetaBatches
from ghn_pyg.training import GHNLoss, meta_gradient
from tests.training.tiny import CONFIG, GHN3, digits, free_port, start

pytestmark = [
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
    pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs gloo"),
]
OPTIONS = {"penalty": 0.01, "label_smoothing": 0.1, "seed": 3}


def new_ghn():
    torch.manual_seed(3)
    return GHN(GHN3).train()


def meta_batches(**options):
    return MetaBatches(3, num_classes=10, image_size=8, widths=CONFIG.widths, seed=3, **options)


def own_loop(file, port=None, rank=0):
    """Trains for two steps; rank 0 writes losses and weights."""
    if port:
        address = f"tcp://127.0.0.1:{port}"
        torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    ghn = new_ghn()
    step = GHNLoss(ghn, architectures=3, **OPTIONS)
    if port:
        step = DistributedDataParallel(step, find_unused_parameters=True)
    optimizer = torch.optim.SGD(ghn.parameters(), 0.1)
    losses, images = [], digits().train
    for meta_batch in meta_batches():
        if meta_batch.step == 2:
            break
        loss = step(meta_batch, *images.batch(range(16 * meta_batch.step, 16 * meta_batch.step + 16)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if port:
            torch.distributed.all_reduce(loss := loss.detach())
            loss /= 2
        losses.append(loss.item())
    if rank == 0:
        torch.save((losses, ghn.state_dict()), file)
    if port:
        torch.distributed.destroy_process_group()


def test_two_processes_equal_one(tmp_path):
    own_loop(tmp_path / "one.pt")
    port = free_port()
    processes = [start(own_loop, tmp_path / "two.pt", port, rank) for rank in range(2)]
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    (losses, weights), (other_losses, others) = (torch.load(tmp_path / f"{name}.pt") for name in ("one", "two"))
    assert losses == pytest.approx(other_losses, rel=1e-5)
    for name, weight in weights.items():
        torch.testing.assert_close(others[name], weight, rtol=1e-3, atol=1e-6)
    before = new_ghn().state_dict()
    assert any(not torch.equal(before[name], weight) for name, weight in weights.items())


def test_the_gradient_is_that_of_a_run():
    batch = meta_batches(node_budget=1).meta_batch(0)  # a part for each network
    images, labels = digits().train.batch(range(16))
    own, expected = new_ghn(), new_ghn()
    loss = GHNLoss(own, architectures=3, **OPTIONS)(batch, images, labels)
    loss.backward()
    shares = meta_gradient(expected, batch, images, labels, architectures=3, **OPTIONS)
    assert loss.item() == pytest.approx(shares[0].item())
    for (name, weight), other in zip(own.named_parameters(), expected.parameters(), strict=True):
        if other.grad is None:
            assert weight.grad is None, name
        else:
            torch.testing.assert_close(weight.grad, other.grad, rtol=1e-4, atol=1e-7)
