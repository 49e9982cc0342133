"""What PyTorch functions do to the graph, one file for each kind of layer. Importing it registers all rules."""

from . import (  # noqa: F401
    aggregation,
    aten,
    attention,
    constants,
    convolution,
    data_dependent,
    elementwise,
    embedding,
    gradients,
    joins,
    linear_and_matmul,
    means,
    norms,
    pools,
    recurrent,
    shapes,
)
