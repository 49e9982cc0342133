from .centrality import AddCentrality
from .distances import NO_PATH, AddShortestPathDistance, shortest_paths
from .near_pairs import AddShortestPathPairs
from .path_edges import AddShortestPathEdges

__all__ = [
    "NO_PATH",
    "AddCentrality",
    "AddShortestPathDistance",
    "AddShortestPathEdges",
    "AddShortestPathPairs",
    "shortest_paths",
]
