"""The prediction of a GHN for one network."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Prediction(dict[str, Tensor]):
    """Predicted parameters by name.

    Attributes:
        kept: Parameters that are not predicted, each with the reason.
        tied: Further names of shared parameters, each with the name under which it is predicted.
    """

    def __init__(self, kept: dict[str, str], tied: dict[str, str]) -> None:
        super().__init__()
        self.kept = kept
        self.tied = tied

    def total_norm(self) -> float:
        r"""The L2 norm over all predicted parameters, :math:`\sqrt{\sum_p \lVert p \rVert^2}`.

        :func:`~ghn_pyg.models.published_norm` has that of the published predictions.
        """
        return math.hypot(
            *(torch.linalg.vector_norm(tensor.detach().to("cpu", torch.float64)).item() for tensor in self.values())
        )
