import statistics

import pytest
import torch
import torch.nn.functional as F
from torch_geometric.data import Batch

from ghn_pyg import GHN
from ghn_pyg.families.deepnets.meta_batches import MetaBatches
from ghn_pyg.families.deepnets.network import Network
from ghn_pyg.training import step
from ghn_pyg.training.seeds import seed_of
from ghn_pyg.training.step import meta_gradient, meta_loss, meta_network, network_gradient, normalized
from tests.training.tiny import CONFIG, GHN3

STEP = 4
COUNT = 5


@pytest.fixture
def ghn():
    torch.manual_seed(3)
    return GHN(GHN3)


@pytest.fixture(scope="module")
def batch():
    generator = torch.Generator().manual_seed(5)
    return torch.rand(7, 3, 8, 8, generator=generator), torch.randint(10, (7,), generator=generator)


def architectures(node_budget=10_000, **ranks):
    stream = MetaBatches(COUNT, image_size=8, widths=CONFIG.widths, seed=7, node_budget=node_budget, **ranks)
    return stream.meta_batch(STEP)


def gradient(ghn, meta_batch, batch, **options):
    """Share of loss and accuracy, and the gradient as one vector."""
    ghn.zero_grad()
    share = meta_gradient(ghn, meta_batch, *batch, architectures=COUNT, **options)
    found = [torch.zeros_like(one) if one.grad is None else one.grad for one in ghn.parameters()]
    return share, torch.cat([one.flatten() for one in found])


def close(one, other):
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * other.abs().max().item())


def test_the_loss():
    logits, labels = torch.tensor([[0.0, 3, 1], [2, 0, 0]]), torch.tensor([1, 2])
    parameters = [torch.tensor([3.0, 4]), torch.tensor([[12.0]])]
    plain = F.cross_entropy(logits, labels)
    torch.testing.assert_close(meta_loss(logits, labels, parameters, penalty=0.5), plain + 8.5)
    smooth = 0.7 * plain - 0.3 * logits.log_softmax(1).mean()
    torch.testing.assert_close(meta_loss(logits, labels, parameters, label_smoothing=0.3), smooth)
    assert meta_loss(logits.half(), labels, parameters).dtype == torch.float32


def test_the_gradient_of_the_penalty():
    """That of each tensor's norm, and 0 for a tensor of zeros, which has none."""
    parameters = [torch.tensor([3.0, 4]), torch.tensor([[-12.0]]), torch.zeros(5, 2), torch.tensor(7.0)]
    parameters = [parameter.double().requires_grad_() for parameter in parameters]
    logits, labels = torch.zeros(3, 2), torch.tensor([1, 0, 1])

    def loss(*parameters):
        return 3 * meta_loss(logits, labels, parameters, penalty=0.5)

    loss(*parameters).backward()
    expected = [[0.9, 1.2], [[-1.5]], [[0.0, 0]] * 5, 1.5]
    for parameter, values in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.grad, torch.tensor(values, dtype=torch.double))
    same = torch.func.grad(loss, argnums=(0, 1, 2, 3))(*parameters)
    torch.testing.assert_close(same, tuple(parameter.grad for parameter in parameters))


@pytest.mark.parametrize("penalty", [0.0, 0.01])
def test_the_gradient_is_that_of_one_backward_pass_through_everything(ghn, batch, penalty):
    meta_batch = architectures()
    share, found = gradient(ghn, meta_batch, batch, penalty=penalty, label_smoothing=0.1, seed=11)
    ghn.zero_grad()
    losses, right = [], []
    for part in meta_batch.parts:
        for prediction, one in zip(ghn.predict(part, differentiable=True), part.architecture, strict=True):
            torch.manual_seed(seed_of(11, STEP, int.from_bytes(one.key[:8])))  # dropout
            network = Network(one, 10, 8).train()
            torch.manual_seed(seed_of(11, STEP, int.from_bytes(one.key[:8])))
            logits = torch.func.functional_call(network, dict(prediction), (batch[0],))
            norms = sum(tensor.norm() for tensor in prediction.values())
            losses.append(F.cross_entropy(logits, batch[1], label_smoothing=0.1) + penalty * norms)
            right.append((logits.argmax(1) == batch[1]).float().mean())
    assert len(losses) == COUNT
    loss = torch.stack(losses).mean()
    loss.backward()
    expected = [torch.zeros_like(one) if one.grad is None else one.grad for one in ghn.parameters()]
    torch.testing.assert_close(share, torch.stack([loss.detach(), torch.stack(right).mean(), *torch.zeros(2)]))
    close(found, torch.cat([one.flatten() for one in expected]))


def test_parts_change_nothing(ghn, batch):
    whole, parts = architectures(), architectures(node_budget=1)
    assert (len(whole.parts), len(parts.parts)) == (1, COUNT)
    exact = ghn.double(), (batch[0].double(), batch[1])  # untrained networks amplify rounding
    share, found = gradient(exact[0], whole, exact[1])
    other_share, other = gradient(exact[0], parts, exact[1])
    torch.testing.assert_close(other_share, share)
    torch.testing.assert_close(other, found, rtol=1e-6, atol=1e-8)


def test_shares_of_ranks_add_up(ghn, batch):
    exact = ghn.double(), (batch[0].double(), batch[1])
    share, found = gradient(exact[0], architectures(), exact[1])
    parts = [gradient(exact[0], architectures(rank=rank, world_size=2), exact[1]) for rank in range(2)]
    torch.testing.assert_close(parts[0][0] + parts[1][0], share)
    torch.testing.assert_close(parts[0][1] + parts[1][1], found, rtol=1e-6, atol=1e-8)


def test_a_scaled_loss_scales_the_gradient(ghn, batch):
    _, found = gradient(ghn, architectures(), batch)
    share, scaled = gradient(ghn, architectures(), batch, backward=lambda loss: (1024 * loss).backward())
    close(scaled, 1024 * found)
    assert share[0] < 4


def test_half_precision_spares_classifier_and_loss(ghn, batch):
    one = architectures().parts[0].architecture[0]
    parameters = {name: torch.rand_like(value) for name, value in Network(one, 10, 8).named_parameters()}
    dtypes = {}
    network = meta_network(one, 10, 8, "cpu")

    def note(name, output):
        if isinstance(output, torch.Tensor):
            dtypes[name] = output.dtype

    for name, module in network.named_modules():
        module.register_forward_hook(lambda module, _, output, name=name: note(name, output))
    with torch.autocast("cpu", torch.bfloat16):
        torch.func.functional_call(network, parameters, (batch[0],))
    assert dtypes["classifier"] == torch.float32
    assert torch.bfloat16 in dtypes.values()


def test_half_precision_changes_little(batch):
    """Of most GHNs; gradients through some networks turn with the last digit of a weight."""
    near = []
    for seed in range(5):
        torch.manual_seed(seed)
        ghn = GHN(GHN3)
        share, found = gradient(ghn, architectures(), batch)
        half, other = gradient(ghn, architectures(), batch, autocast=lambda: torch.autocast("cpu", torch.float16))
        assert not torch.equal(half, share)
        torch.testing.assert_close(half[0], share[0], rtol=0.02, atol=0)
        near.append(F.cosine_similarity(other, found, dim=0).item())
    assert statistics.median(near) > 0.95, near


def test_balanced_gradients_are_those_of_networks_scaled_to_one_norm(ghn, batch):
    exact = ghn.double(), (batch[0].double(), batch[1])
    whole = architectures()
    _, found = gradient(exact[0], whole, exact[1], balance=True)
    (part,) = whole.parts
    expected = sum(balanced(ghn, part, exact[1]))
    # Losses are in single precision.
    close(found.float(), expected.float())


def balanced(ghn, part, batch):
    """For each network its share of the balanced gradient."""
    for prediction, one in zip(ghn.predict(part, differentiable=True), part.architecture, strict=True):
        torch.manual_seed(seed_of(0, STEP, int.from_bytes(one.key[:8])))  # dropout
        logits = torch.func.functional_call(meta_network(one, 10, 8, "cpu"), dict(prediction), (batch[0],))
        loss = meta_loss(logits, batch[1], [])
        own = torch.autograd.grad(loss, [*prediction.values()], allow_unused=True, retain_graph=True)
        norm = torch.cat([one.flatten() for one in own if one is not None]).norm()
        mine = torch.autograd.grad(loss / (COUNT * norm), [*ghn.parameters()], allow_unused=True, retain_graph=True)
        yield torch.cat([
            torch.zeros_like(one).flatten() if gradient is None else gradient.flatten()
            for one, gradient in zip(ghn.parameters(), mine, strict=True)
        ])  # fmt: skip


def test_a_network_whose_gradient_is_not_finite_is_left_out(ghn, batch, monkeypatch):
    exact, whole = (ghn.double(), (batch[0].double(), batch[1])), architectures()
    (part,) = whole.parts
    factors = iter([1, 1, torch.nan, 1, 1])
    monkeypatch.setattr(step, "meta_loss", lambda *arguments: next(factors) * meta_loss(*arguments))
    share, found = gradient(exact[0], whole, exact[1], balance=True)
    monkeypatch.undo()
    expected = [one for place, one in enumerate(balanced(ghn, part, exact[1])) if place != 2]
    close(found.float(), sum(expected).float())
    assert share[2] == pytest.approx(1 / COUNT)
    assert 10 / COUNT < share[0] < 4


# --- out of memory ---------------------------------------------------------------------------------------------------


def short_of_memory(monkeypatch, too_much):
    """Networks whose logits and parameters are too much do not fit into memory."""

    def loss(logits, labels, parameters, *options):
        if too_much(len(logits), sum(parameter.numel() for parameter in parameters)):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB")
        return meta_loss(logits, labels, parameters, *options)

    monkeypatch.setattr(step, "meta_loss", loss)


def test_networks_run_on_fewer_images_at_a_time(ghn, monkeypatch):
    images, labels = torch.rand(19, 3, 8, 8, dtype=torch.double), torch.randint(10, (19,))
    ghn, whole = ghn.double(), architectures()
    short_of_memory(monkeypatch, lambda images, parameters: images > 5)
    share, found = gradient(ghn, whole, (images, labels), penalty=0.01)
    ghn.zero_grad()
    losses = []
    for prediction, one in zip(
        ghn.predict(whole.parts[0], differentiable=True), whole.parts[0].architecture, strict=True
    ):
        norms = sum(tensor.norm() for tensor in prediction.values())
        for inputs, targets in zip(images.split([5, 5, 5, 4]), labels.split([5, 5, 5, 4]), strict=True):
            torch.manual_seed(seed_of(0, STEP, int.from_bytes(one.key[:8])))  # dropout
            logits = torch.func.functional_call(meta_network(one, 10, 8, "cpu"), dict(prediction), (inputs,))
            losses.append((F.cross_entropy(logits.float(), targets) + 0.01 * norms) * len(inputs) / 19 / COUNT)
    total = torch.stack(losses).sum()
    total.backward()
    expected = [torch.zeros_like(one) if one.grad is None else one.grad for one in ghn.parameters()]
    close(found.float(), torch.cat([one.flatten() for one in expected]).float())
    assert share[0] == pytest.approx(total.item(), rel=1e-5)
    assert share[3] == 0


def test_networks_compute_activations_twice(batch):
    """Which changes nothing, also with dropout, and keeps less for the backward pass."""
    whole = architectures()
    one = whole.parts[0].architecture[0].replace(classifier_layers=2, hidden=17)  # has dropout
    parameters = {name: torch.rand_like(value) for name, value in Network(one, 10, 8).named_parameters()}
    kept = 0

    def keep(x):
        nonlocal kept
        kept += x.numel()
        return x

    results, sizes = [], []
    for recompute in (False, True):
        kept = 0
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            results.append(network_gradient(parameters, one, whole, *batch, recompute=recompute, seed=11))
        sizes.append(kept)
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=0)
    assert sizes[1] < 0.5 * sizes[0]


def test_a_network_that_does_not_fit_into_memory_is_left_out(ghn, batch, monkeypatch, caplog):
    sizes = [sum(map(torch.numel, prediction.values())) for prediction in ghn.predict(architectures().parts[0])]
    short_of_memory(monkeypatch, lambda images, parameters: parameters == max(sizes))
    ghn, batch = ghn.double(), (batch[0].double(), batch[1])
    share, found = gradient(ghn, architectures(), batch)
    monkeypatch.undo()
    smaller = architectures()
    graphs = [graph for graph, size in zip(smaller.parts[0].to_data_list(), sizes, strict=True) if size < max(sizes)]
    smaller.parts[:] = [Batch.from_data_list(graphs)]
    other_share, other = gradient(ghn, smaller, batch)
    torch.testing.assert_close(found, other, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(share, other_share + torch.tensor([0, 0, 0, 1 / COUNT]))
    (message,) = caplog.messages
    assert message.startswith(f"step {STEP}: a network of ")
    assert "memory does not suffice" in message


@pytest.mark.parametrize("most", [1, 0])
def test_a_part_that_does_not_fit_into_memory_is_divided(batch, monkeypatch, most):
    """No gradient of the failed attempt remains."""
    torch.manual_seed(3)
    plain = GHN(GHN3).double()
    exact = (batch[0].double(), batch[1])
    expected_share, expected = gradient(plain, architectures(), exact)

    class Large(GHN):
        def predict(self, networks, **options):
            if networks.num_graphs > most:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 7 bytes")
            return super().predict(networks, **options)

    large = Large(GHN3).double()
    large.load_state_dict(plain.state_dict())
    share, found = gradient(large, architectures(), exact)
    if most:
        torch.testing.assert_close((share, found), (expected_share, expected), rtol=1e-6, atol=1e-8)
    else:
        assert share.tolist() == pytest.approx([0, 0, 0, 1])
        assert not found.any()


def test_other_errors_are_raised(ghn, batch, monkeypatch):
    def fail(*_):
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(step, "meta_loss", fail)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        gradient(ghn, architectures(), batch)


def test_global_generators_stay(ghn, batch):
    torch.manual_seed(3)
    state = torch.get_rng_state()
    gradient(ghn, architectures(), batch)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("value", [0.0, torch.nan, torch.inf])
def test_gradients_without_a_norm_are_not_scaled(value):
    assert normalized([torch.tensor([value])], 1.0) is None
