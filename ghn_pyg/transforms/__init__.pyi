from .centrality import AddCentrality
from .distances import NO_PATH, AddShortestPathDistance, shortest_paths
from .expander import AddExpanderEdges
from .near_pairs import AddShortestPathPairs
from .pairwise_data import PairwiseData
from .path_edges import AddShortestPathEdges
from .random_walks import AddRelativeWalks

__all__ = [
    "NO_PATH",
    "AddCentrality",
    "AddExpanderEdges",
    "AddRelativeWalks",
    "AddShortestPathDistance",
    "AddShortestPathEdges",
    "AddShortestPathPairs",
    "PairwiseData",
    "shortest_paths",
]
