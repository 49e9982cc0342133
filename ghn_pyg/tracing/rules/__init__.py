"""What PyTorch functions do to the graph, one file a kind of layer. Importing this registers all rules."""

from . import (  # noqa: F401
    arithmetic,
    constants,
    data_dependent,
    extensions,
    layers,
    means,
    norms,
    pools,
    products,
    recurrent,
    shapes,
)
