"""Networks of e3nn, which are equivariant to rotations."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .common import Networks
from .graphs import EDGES, NODES, WIDTH, edges


def e3nn() -> Networks:
    """Equivariant networks and layers."""
    from e3nn import nn as layers
    from e3nn import o3
    from e3nn.nn.models import gate_points_2102
    from e3nn.nn.models.v2106 import gate_points_networks as v2106

    place, x = 2 * torch.rand(NODES, 3), torch.rand(NODES, WIDTH)
    small = {"max_radius": 2.0, "num_neighbors": 3.0, "num_nodes": float(NODES), "mul": 4, "layers": 2, "lmax": 1}
    directions = o3.spherical_harmonics("0e + 1o", torch.rand(NODES, 3), True)
    features = torch.rand(NODES, 7)
    both = o3.Irreps("4x0e + 1x1o")
    gate = layers.Gate("3x0e", [torch.tanh], "2x0e", [torch.sigmoid], "2x1o")

    class Together(nn.Module):
        """A tensor product with weights of its own, between linear layers and an activation."""

        def __init__(self, product: nn.Module, *after: nn.Module) -> None:
            super().__init__()
            self.before, self.product, self.after = o3.Linear(both, both), product, nn.Sequential(*after)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.after(self.product(self.before(x), y))

    class Radial(nn.Module):
        """A tensor product with weights that a network of lengths gives."""

        def __init__(self) -> None:
            super().__init__()
            self.product = o3.FullyConnectedTensorProduct(both, "0e + 1o", both, shared_weights=False)
            self.weights = layers.FullyConnectedNet([5, 9, self.product.weight_numel], torch.nn.functional.silu)

        def forward(self, x: Tensor, y: Tensor, length: Tensor) -> Tensor:
            return self.product(x, y, self.weights(length))

    def product() -> nn.Module:
        network: nn.Module = o3.FullyConnectedTensorProduct(both, "0e + 1o", both)
        return network

    return {
        "SimpleNetwork": lambda: (v2106.SimpleNetwork(f"{WIDTH}x0e", "3x0e", **small), {"data": _atoms(place, x)}),
        "NetworkForAGraphWithAttributes": lambda: (
            v2106.NetworkForAGraphWithAttributes(f"{WIDTH}x0e", "2x0e", "2x0e", "3x0e", **small),
            {"data": _attributes(place, x)}),
        "gate_points_2102": lambda: (
            gate_points_2102.Network(f"{WIDTH}x0e", "4x0e + 4x1o", "3x0e", None, "0e + 1o", 2, 2.0, 4, 1, 9, 3.0, 9.0),
            {"data": {"pos": place, "x": x}}),
        "FullyConnectedNet": lambda: (layers.FullyConnectedNet([WIDTH, 11, 5], torch.nn.functional.silu), x),
        "tensor product": lambda: (Together(product()), (features, directions)),
        "tensor product and batch norm": lambda: (Together(product(), layers.BatchNorm(both)), (features, directions)),
        "tensor product and gate": lambda: (
            Together(o3.FullyConnectedTensorProduct(both, "0e + 1o", gate.irreps_in), gate,
                     o3.Linear(gate.irreps_out, "3x0e")), (features, directions)),
        "tensor product and activation of norms": lambda: (
            Together(product(), layers.NormActivation(both, torch.sigmoid, bias=True)), (features, directions)),
        "radial weights": lambda: (Radial(), (features, directions, torch.rand(NODES, 5))),
        "linear layers with biases": lambda: (
            nn.Sequential(o3.Linear(both, both, biases=True), o3.Linear(both, "5x0e", biases=True)), features),
        "activation on the sphere": lambda: (
            nn.Sequential(o3.Linear("4x0e + 1x1o", "0e + 1o"), layers.S2Activation("0e + 1o", torch.tanh, 10)),
                features),
    }  # fmt: skip


def _atoms(place: Tensor, x: Tensor) -> dict[str, Tensor]:
    return {"pos": place, "x": x, "batch": torch.zeros(NODES, dtype=torch.long)}


def _attributes(place: Tensor, x: Tensor) -> dict[str, Tensor]:
    return {
        **_atoms(place, x),
        "edge_index": edges(),
        "node_input": x,
        "node_attr": torch.rand(NODES, 2),
        "edge_attr": torch.rand(EDGES, 2),
    }
