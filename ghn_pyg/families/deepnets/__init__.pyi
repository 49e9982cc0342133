from .architecture import Architecture
from .architecture_sampling import PREDEFINED, SPLIT_SIZES, check_index, sample
from .curriculum import Curriculum
from .dataset import DeepNets, graph_with_architecture
from .genotype import DARTS, OPERATIONS, PDARTS, VIT, Genotype
from .graph_from_architecture import architecture_graph
from .meta_batches import NODE_BUDGET, MetaBatch, MetaBatches
from .network import Network
from .network_plan import LARGE_IMAGES, count_parameters
from .portable_random import PortableRandom
from .published_export import export
from .published_hdf5 import PublishedDeepNets
from .published_json import DatasetError
from .statistics import MEASURES, Measured, Summary, measure, measure_split, operation_shares, summarize
from .width_sampling import CIFAR, IMAGENET, Bound, WidthRule, evaluation_width

__all__ = [
    "CIFAR",
    "DARTS",
    "IMAGENET",
    "LARGE_IMAGES",
    "MEASURES",
    "NODE_BUDGET",
    "OPERATIONS",
    "PDARTS",
    "PREDEFINED",
    "SPLIT_SIZES",
    "VIT",
    "Architecture",
    "Bound",
    "Curriculum",
    "DatasetError",
    "DeepNets",
    "Genotype",
    "Measured",
    "MetaBatch",
    "MetaBatches",
    "Network",
    "PortableRandom",
    "PublishedDeepNets",
    "Summary",
    "WidthRule",
    "architecture_graph",
    "check_index",
    "count_parameters",
    "evaluation_width",
    "export",
    "graph_with_architecture",
    "measure",
    "measure_split",
    "operation_shares",
    "sample",
    "summarize",
]
