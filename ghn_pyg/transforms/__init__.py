"""Transforms that add what attention over graphs needs: distances, paths and degrees."""

from .acyclic import NO_PATH, shortest_paths
from .centrality import AddCentrality
from .distances import AddShortestPathDistance, AddShortestPathPairs
from .paths import AddShortestPathEdges

__all__ = [
    "NO_PATH",
    "AddCentrality",
    "AddShortestPathDistance",
    "AddShortestPathEdges",
    "AddShortestPathPairs",
    "shortest_paths",
]
