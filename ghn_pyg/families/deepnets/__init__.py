"""DeepNets-1M: the distribution of training architectures (GHN-2, arXiv 2110.13100, section 4)."""

from .architecture import Architecture
from .dataset import DeepNets, MetaBatch, MetaBatches
from .genotype import DARTS, OPERATIONS, PDARTS, VIT, Genotype
from .graph import architecture_graph
from .network import Network
from .published import PublishedDeepNets
from .published_files import DatasetError
from .published_writer import export
from .sampling import PREDEFINED, SPLIT_SIZES, sample
from .widths import CIFAR, IMAGENET, WidthRule

__all__ = [
    "CIFAR",
    "DARTS",
    "IMAGENET",
    "OPERATIONS",
    "PDARTS",
    "PREDEFINED",
    "SPLIT_SIZES",
    "VIT",
    "Architecture",
    "DatasetError",
    "DeepNets",
    "Genotype",
    "MetaBatch",
    "MetaBatches",
    "Network",
    "PublishedDeepNets",
    "WidthRule",
    "architecture_graph",
    "export",
    "sample",
]
