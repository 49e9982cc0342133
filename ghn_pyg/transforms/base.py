"""What the transforms share."""

from __future__ import annotations

from torch_geometric.transforms import BaseTransform


class Transform(BaseTransform):
    """A transform that shows its options: data sets compare what they were processed with by how it is shown."""

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({options})"
