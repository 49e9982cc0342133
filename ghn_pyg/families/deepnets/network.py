"""Architecture → ``nn.Module`` (GHN-2, arXiv 2110.13100, section 4 and appendix B)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .architecture import Architecture
from .network_plan import CellPlan, plan_network


class Cell(nn.Module):
    """A cell of a network.

    Operations that do not contribute to the network's output exist, with their parameters, but are not computed. An
    attribute ``drop_path`` takes a module that all operations but identities go through, as in DARTS.

    Args:
        plan: Its building blocks.
        meta: Whether the current device is the meta device.
    """

    def __init__(self, plan: CellPlan, meta: bool) -> None:
        super().__init__()
        self.preprocess0 = plan.preprocess[0].module(meta)
        self.preprocess1 = plan.preprocess[1].module(meta)
        self._ops = nn.ModuleList([block.module(meta) for block in plan.operations])
        self.inputs = plan.wiring.inputs
        self.branches = plan.wiring.branches
        self.states = plan.states
        self.concat = plan.concat
        self.drop_path: nn.Module | None = None

    def forward(self, before: Tensor | None, last: Tensor | None) -> Tensor | None:
        """Computes the cell from the outputs of the two cells before it.

        Args:
            before: Features of the cell before the last, of shape (B, C, H, W), right after a reduction (B, C, 2H, 2W);
                ``None`` if unused.
            last: Features of the last cell, of shape (B, C', H, W); ``None`` if unused.

        Returns:
            Features of shape (B, C'', ⌈H/stride⌉, ⌈W/stride⌉); ``None`` if the network does not use them.
        """
        states: list[Tensor | None] = [
            self.preprocess0(before) if self.inputs[0] else None,
            self.preprocess1(last) if self.inputs[1] else None,
        ]
        for step in range(0, len(self.states), 2):
            terms = [self._branch(i, states[self.states[i]]) for i in (step, step + 1) if self.branches[i]]
            states.append(terms[0] + terms[1] if len(terms) == 2 else terms[0] if terms else None)
        return _concatenate([states[state] for state in self.concat])

    def _branch(self, number: int, state: Tensor | None) -> Tensor:
        operation = self._ops[number]
        x: Tensor = operation(state)
        return x if self.drop_path is None or isinstance(operation, nn.Identity) else self.drop_path(x)


def _concatenate(features: Sequence[Tensor | None]) -> Tensor | None:
    """Concatenates the channels; absent features are zeros, unless all are absent."""
    present = [x for x in features if x is not None]
    if not present or len(features) == 1:
        return features[0]
    return torch.cat([torch.zeros_like(present[0]) if x is None else x for x in features], 1)


class Network(nn.Module):
    r"""The network of an architecture.

    It consists of a stem, :math:`n` cells and a classifier. The cells at :math:`\lfloor n/3 \rfloor` and
    :math:`\lfloor 2n/3 \rfloor` halve the size and multiply the width. Networks with self-attention have a stem of
    patches and keep their size.

    Batch norms have no running statistics: as in published training and evaluation, they always use those of the
    batch. On the meta device (``with torch.device("meta"):``) nothing is initialised, and building takes milliseconds.

    Args:
        architecture: The architecture.
        num_classes: Number of classes.
        image_size: Height and width of the images in pixels, at least 4. From 65 pixels on, the network has the
            ImageNet stem, which strides by 4 (with self-attention: patches of 16×16), below the CIFAR stem (patches
            of 3×3).
        width: Channels of the first cells; by default those of ``architecture``. At least 2, and a multiple of 8 with
            self-attention.
        hidden: Hidden size of the classifier; by default that of ``architecture``.
        auxiliary: Whether an auxiliary classifier follows cell :math:`\lfloor 2n/3 \rfloor` in training mode.

    Shapes:
        - **input:** images (B, 3, image_size, image_size)
        - **output:** logits (B, num_classes); in training mode with ``auxiliary`` a pair of logits, main and auxiliary

    Raises:
        TypeError: If an argument is no integer.
        ValueError: If an argument is out of range, if an operation cannot have this number of channels, or if the
            output or the auxiliary classifier does not depend on the input.

    Example:
        >>> from ghn_pyg.families.deepnets import DARTS
        >>> network = Network(Architecture(genotype=DARTS, cells=4), num_classes=7, width=4)
        >>> network(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 7])
    """

    def __init__(
        self, architecture: Architecture, num_classes: int = 10, image_size: int = 32, width: int | None = None,
        hidden: int | None = None, auxiliary: bool = False,
    ) -> None:  # fmt: skip
        plan = plan_network(architecture, num_classes, image_size, width, hidden, auxiliary)
        super().__init__()
        self.architecture = architecture
        self.num_classes = num_classes
        self.image_size = image_size
        self.stem_names = tuple(name for name, _ in plan.stem)
        self.head_names = tuple(name for name, _ in plan.head)
        self.fork = plan.fork
        self.stem_used = plan.stem_used
        self.auxiliary_cell = plan.auxiliary_cell if auxiliary else None
        meta = torch.get_default_device().type == "meta"
        for name, block in plan.stem:
            self.add_module(name, block.module(meta))
        self.cells = nn.ModuleList([Cell(cell, meta) for cell in plan.cells])
        if plan.auxiliary is not None:
            self.auxiliary_head = plan.auxiliary[1].module(meta)
        for name, block in plan.head:
            self.add_module(name, block.module(meta))

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Computes the logits."""
        # channels_last makes convolutions on a CPU 1.4 times faster, depthwise ones above all.
        on_cpu = images.device.type == "cpu"
        x, stems = images.contiguous(memory_format=torch.channels_last) if on_cpu else images, []
        for name in self.stem_names[: self.stem_used]:
            x = self.get_submodule(name)(x)
            stems.append(x)
        before, last = stems[self.fork], stems[-1]
        auxiliary = None
        for position, cell in enumerate(self.cells):
            before, last = last, cell(before, last)
            if position == self.auxiliary_cell and self.training:
                auxiliary = self.auxiliary_head(last)
        for name in self.head_names:
            last = self.get_submodule(name)(last)
        return last if auxiliary is None else (last, auxiliary)
