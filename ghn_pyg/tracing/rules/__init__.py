"""What PyTorch functions do to the graph, one file for each kind of layer. Importing it registers all rules."""

from . import (  # noqa: F401
    aggregation,
    attention,
    constants,
    convolution,
    data_dependent,
    elementwise,
    embedding,
    joins,
    linear_and_matmul,
    means,
    norms,
    pools,
    recurrent,
    shapes,
)
