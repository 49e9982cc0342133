"""Noise on predicted weights, and orthogonal weights (GHN-3, arXiv 2303.04143)."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor


def add_noise(
    parameters: Mapping[str, Tensor], beta: float = 1e-5, *, skip: Collection[str] = (), seed: int = 0
) -> dict[str, Tensor]:
    r"""Adds noise to weights, so that channels that were predicted to be equal can become different in training.

    .. math::
        W \leftarrow W + \beta \, \mathrm{std}(\mathrm{corr}(W)) \, \epsilon, \qquad \epsilon \sim \mathcal{N}(0, 1)

    with the correlation coefficients of the rows of :math:`W` as a matrix.

    Args:
        parameters: Tensors by name. Those with fewer than two dimensions stay unchanged.
        beta: :math:`\beta`.
        skip: Names of tensors that stay unchanged, such as those of the last layer.
        seed: Seed of the noise.

    Returns:
        Tensors by name, in the same order.

    Raises:
        ValueError: If ``beta`` is negative or not finite.

    Example:
        >>> weight = add_noise({"weight": torch.eye(3)}, beta=0.1, seed=5)["weight"]
        >>> bool((weight != torch.eye(3)).all())
        True
    """
    if not 0 <= beta < float("inf"):
        raise ValueError(f"beta expected a number of at least 0, got {beta}")
    generator = torch.Generator().manual_seed(seed)
    noisy = dict(parameters)
    for name, tensor in parameters.items():
        if tensor.dim() >= 2:
            noise = torch.randn(tensor.shape, generator=generator).to(tensor)  # also for skipped tensors
            if name not in skip:
                noisy[name] = tensor + beta * _std_of_correlations(tensor.flatten(1)) * noise
    return noisy


def _std_of_correlations(matrix: Tensor) -> Tensor:
    """Standard deviation of the correlation coefficients; 0 for a single row or column, and of constant rows."""
    if min(matrix.shape) == 1:
        return matrix.new_zeros(())
    coefficients = torch.corrcoef(matrix.to("cpu", torch.float64))  # some devices have no double precision
    return torch.nan_to_num(coefficients).std(correction=0).to(matrix)


def orthogonalize(parameters: Mapping[str, Tensor], first: int = 0, *, skip: Collection[str] = ()) -> dict[str, Tensor]:
    r"""Replaces weights by matrices with orthonormal rows, or orthonormal columns if there are more rows than columns.

    A weight is a matrix :math:`W` with one row for each output. With :math:`W^\top = QR`, where the diagonal of
    :math:`R` is not negative, it becomes :math:`Q^\top`. If it has more rows than columns, :math:`W = QR` becomes
    :math:`Q`.

    Args:
        parameters: Tensors by name. Those with fewer than two dimensions stay unchanged.
        first: The first weights, up to this number, stay unchanged.
        skip: Names of tensors that stay unchanged, such as those of the last layer.

    Returns:
        Tensors by name, in the same order.

    Raises:
        ValueError: If ``first`` is negative.

    Example:
        >>> weight = orthogonalize({"weight": torch.tensor([[3.0, 4, 0], [0, 1, 7]])})["weight"]
        >>> torch.allclose(weight @ weight.t(), torch.eye(2), atol=1e-6)
        True
    """
    if first < 0:
        raise ValueError(f"first expected a number of at least 0, got {first}")
    weights = [name for name, tensor in parameters.items() if tensor.dim() >= 2]
    changed = {name: _orthogonal(parameters[name]) for name in weights[first:] if name not in skip}
    return {**parameters, **changed}


def _orthogonal(tensor: Tensor) -> Tensor:
    matrix = tensor.flatten(1).to("cpu", torch.float64)  # some devices have no double precision
    tall = matrix.size(0) > matrix.size(1)
    q, r = torch.linalg.qr(matrix if tall else matrix.t())
    q = q * torch.where(r.diagonal() < 0, -1.0, 1.0)
    return (q if tall else q.t()).reshape(tensor.shape).to(tensor)
