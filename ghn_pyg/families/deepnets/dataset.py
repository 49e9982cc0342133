"""A split of DeepNets-1M as a PyTorch Geometric dataset, sampled on the fly."""

from __future__ import annotations

from torch_geometric.data import Dataset

from ...graph.arch_data import ArchData
from .architecture import Architecture
from .architecture_sampling import SPLIT_SIZES, check_index, sample
from .graph_from_architecture import architecture_graph
from .width_sampling import evaluation_width


class DeepNets(Dataset):
    """A split of DeepNets-1M: the graph of each architecture, with the architecture as ``graph.architecture``.

    Nothing is stored: each access samples the architecture (see :func:`~ghn_pyg.families.deepnets.sample`) and
    computes its graph, which takes one or two milliseconds. Slices, lists of indices and shuffling work as with every
    :class:`torch_geometric.data.Dataset`.

    Args:
        split: ``"train"``, ``"val"``, ``"test"``, ``"wide"``, ``"deep"``, ``"dense"``, ``"bnfree"`` or ``"search"``.
        num_classes: Number of classes of the networks.
        image_size: Height and width of the images in pixels.
        width: Channels of the first cells; networks of the split ``"wide"`` have a multiple of it.
        seed: Selects another sample of the same distribution.
        cutoff: Largest shortest-path distance to keep.

    Raises:
        ValueError: If there is no such split. On access, if a network cannot have this width, number of classes or
            image size.

    Example:
        >>> graph = DeepNets("val")[3]
        >>> graph.num_nodes, graph.architecture.cells, graph.architecture.width
        (157, 12, 32)
    """

    def __init__(
        self, split: str, *, num_classes: int = 10, image_size: int = 32, width: int = 32, seed: int = 0,
        cutoff: int = 50,
    ) -> None:  # fmt: skip
        check_index(split, 0, seed)
        super().__init__()
        self.split = split
        self.classes = num_classes
        self.image_size = image_size
        self.width = evaluation_width(split, image_size, width)
        self.seed = seed
        self.cutoff = cutoff

    @property
    def num_classes(self) -> int:
        """Number of classes of the networks."""
        return self.classes

    def len(self) -> int:
        """Number of architectures."""
        return SPLIT_SIZES[self.split]

    def get(self, idx: int) -> ArchData:
        """The graph at an index."""
        architecture = sample(self.split, idx, self.seed).replace(width=self.width)
        return graph_with_architecture(architecture, self.num_classes, self.image_size, self.cutoff)


def graph_with_architecture(
    architecture: Architecture, num_classes: int = 10, image_size: int = 32, cutoff: int = 50
) -> ArchData:
    """The graph of an architecture, with the architecture as ``graph.architecture``."""
    graph = architecture_graph(architecture, num_classes, image_size, cutoff=cutoff)
    graph.architecture = architecture
    return graph
