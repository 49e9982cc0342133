"""Architecture → ``nn.Module`` (GHN-2, arXiv 2110.13100, section 4 and appendix B)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .architecture import Architecture
from .layout import CellLayout, lay_out


class Cell(nn.Module):
    """A cell of a network.

    Parts that the network's output does not depend on exist, with their parameters, but are not computed.

    Args:
        layout: Its parts.
        meta: Whether the current device is the meta device.
    """

    def __init__(self, layout: CellLayout, meta: bool) -> None:
        super().__init__()
        self.preprocess0 = layout.preprocess[0].module(meta)
        self.preprocess1 = layout.preprocess[1].module(meta)
        self._ops = nn.ModuleList([part.module(meta) for part in layout.operations])
        self.inputs = layout.wiring.inputs
        self.branches = layout.wiring.branches
        self.states = layout.states
        self.concat = layout.concat

    def forward(self, before: Tensor | None, last: Tensor | None) -> Tensor | None:
        """Computes the cell from the outputs of the cell before the last and of the last one.

        Args:
            before: Features of shape (B, C, H, W), after a reduction of (B, C, 2H, 2W); ``None`` where unused.
            last: Features of shape (B, C', H, W); ``None`` where unused.

        Returns:
            Features of shape (B, C'', ⌈H/stride⌉, ⌈W/stride⌉); ``None`` where the network does not use them.
        """
        states: list[Tensor | None] = [
            self.preprocess0(before) if self.inputs[0] else None,
            self.preprocess1(last) if self.inputs[1] else None,
        ]
        for place in range(0, len(self.states), 2):
            terms = [self._ops[i](states[self.states[i]]) for i in (place, place + 1) if self.branches[i]]
            states.append(terms[0] + terms[1] if len(terms) == 2 else terms[0] if terms else None)
        return _concatenate([states[place] for place in self.concat])


def _concatenate(parts: Sequence[Tensor | None]) -> Tensor | None:
    """Joins the channels; parts that are absent count as zeros where any part is there."""
    present = [part for part in parts if part is not None]
    if not present or len(parts) == 1:
        return parts[0]
    return torch.cat([torch.zeros_like(present[0]) if part is None else part for part in parts], 1)


class Network(nn.Module):
    r"""The network of an architecture.

    A stem, cells, of which those at :math:`\lfloor n/3 \rfloor` and :math:`\lfloor 2n/3 \rfloor` reduce the size and
    multiply the width, and a classifier. Networks with self-attention start with patches and keep their size.

    Batch norms use the statistics of the batch and keep no others, as published training and evaluation do. On the
    meta device (``with torch.device("meta"):``) nothing is initialised, and building takes milliseconds.

    Args:
        architecture: What to build.
        num_classes: Number of classes.
        image_size: Height and width of the images in pixels, at least 4. From 65 on the stem is that for ImageNet,
            which strides by 4 (patches of 16×16 with self-attention), else that for CIFAR (patches of 3×3).
        width: Channels of the first cells; by default as in ``architecture``. At least 2, and a
            multiple of 8 with self-attention.
        hidden: Hidden size of the classifier; by default as in ``architecture``.
        auxiliary: Adds a second classifier after cell :math:`\lfloor 2n/3 \rfloor`, used in training mode.

    Shapes:
        - **input:** images (B, 3, image_size, image_size)
        - **output:** logits (B, num_classes); in training mode with ``auxiliary`` a pair of logits, main and second

    Raises:
        TypeError: If an argument is no integer.
        ValueError: If an argument is out of range, if an operation cannot have so many channels, or if the output or
            the second classifier does not depend on the input.

    Example:
        >>> from ghn_pyg.families.deepnets.genotype import DARTS
        >>> network = Network(Architecture(genotype=DARTS, cells=4), num_classes=7, width=4)
        >>> network(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 7])
    """

    def __init__(
        self, architecture: Architecture, num_classes: int = 10, image_size: int = 32, width: int | None = None,
        hidden: int | None = None, auxiliary: bool = False,
    ) -> None:  # fmt: skip
        layout = lay_out(architecture, num_classes, image_size, width, hidden, auxiliary)
        super().__init__()
        self.architecture = architecture
        self.num_classes = num_classes
        self.image_size = image_size
        self.stem_names = tuple(name for name, _ in layout.stem)
        self.head_names = tuple(name for name, _ in layout.head)
        self.fork = layout.fork
        self.stem_used = layout.stem_used
        self.auxiliary_cell = layout.auxiliary_cell if auxiliary else None
        meta = torch.get_default_device().type == "meta"
        for name, part in layout.stem:
            self.add_module(name, part.module(meta))
        self.cells = nn.ModuleList([Cell(cell, meta) for cell in layout.cells])
        if layout.auxiliary is not None:
            self.auxiliary_head = layout.auxiliary[1].module(meta)
        for name, part in layout.head:
            self.add_module(name, part.module(meta))

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Computes the logits."""
        # With the channels innermost, convolutions on a CPU are 1.4 times faster, depthwise ones above all.
        on_cpu = images.device.type == "cpu"
        x, stems = images.contiguous(memory_format=torch.channels_last) if on_cpu else images, []
        for name in self.stem_names[: self.stem_used]:
            x = self.get_submodule(name)(x)
            stems.append(x)
        before, last = stems[self.fork], stems[-1]
        second = None
        for position, cell in enumerate(self.cells):
            before, last = last, cell(before, last)
            if position == self.auxiliary_cell and self.training:
                second = self.auxiliary_head(last)
        for name in self.head_names:
            last = self.get_submodule(name)(last)
        return last if second is None else (last, second)
