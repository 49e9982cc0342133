from .centrality import AddCentrality
from .distances import NO_PATH, AddShortestPathDistance, shortest_paths
from .near_pairs import AddShortestPathPairs
from .pairwise_data import PairwiseData
from .path_edges import AddShortestPathEdges

__all__ = [
    "NO_PATH",
    "AddCentrality",
    "AddShortestPathDistance",
    "AddShortestPathEdges",
    "AddShortestPathPairs",
    "PairwiseData",
    "shortest_paths",
]
