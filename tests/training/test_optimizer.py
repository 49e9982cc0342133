import pytest
import torch

from ghn_pyg.training.optimizer import make_optimizer
from tests.training.tiny import assert_equal, config, run


def lamb(weights, gradients, rate, decay):
    """Algorithm 2 of arXiv 1904.00962, for one tensor."""
    first, second = torch.zeros_like(weights), torch.zeros_like(weights)
    for step, gradient in enumerate(gradients, start=1):
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        ratio = first / (1 - 0.9**step) / ((second / (1 - 0.999**step)).sqrt() + 1e-6)
        update = ratio + decay * weights
        weights = weights - rate * weights.norm() / update.norm() * update
    return weights


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_lamb_is_that_of_the_paper(decay):
    torch.manual_seed(3)
    starts = [torch.randn(3, 5), torch.randn(7)]
    gradients = [[torch.randn_like(start) for start in starts] for _ in range(4)]
    weights = [torch.nn.Parameter(start.clone()) for start in starts]
    optimizer = make_optimizer(weights, config(optimizer="lamb", learning_rate=0.03, weight_decay=decay))
    for step in gradients:
        for weight, gradient in zip(weights, step, strict=True):
            weight.grad = gradient.clone()
        optimizer.step()
    for weight, start, own in zip(weights, starts, zip(*gradients, strict=True), strict=True):
        torch.testing.assert_close(weight.detach(), lamb(start, own, 0.03, decay))


def test_sgd_has_nesterov_momentum_and_decay():
    weight = torch.nn.Parameter(torch.tensor([2.0]))
    optimizer = make_optimizer([weight], config(optimizer="sgd", learning_rate=0.1, weight_decay=0.5))
    for _ in range(2):
        weight.grad = torch.tensor([3.0])
        optimizer.step()
    # 2 - 0.1 (1 + 0.9) 4 = 1.24; then the gradient is 3.62 and the momentum 0.9 · 4 + 3.62 = 7.22
    assert weight.item() == pytest.approx(1.24 - 0.1 * (3.62 + 0.9 * 7.22))


@pytest.mark.parametrize("optimizer", ["sgd", "lamb"])
def test_a_run_with_another_optimizer_resumes_exactly(tmp_path, optimizer):
    changes = {"optimizer": optimizer, "learning_rate": 1e-3}
    whole = run(tmp_path / "whole", 3, changes)
    run(tmp_path / "parts", 1, changes)
    assert_equal(run(tmp_path / "parts", 3, changes), whole)
