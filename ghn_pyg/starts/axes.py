"""Axes of tensors: which channels of a network's parameters are the same channels.

An axis has a size. Axes that must agree are united (union-find). An axis is a product of smaller ones where a network
reshapes it (heads × channels of a head), and a sum of them where it concatenates or cuts (queries, keys and values).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod
from typing import Final


class Axis:
    """One axis, in a tree of united axes.

    Args:
        size: Its size, at least 2: dimensions of size 1 have no axis.
        place: Whether it counts places, such as rows of an image or tokens, rather than channels.
    """

    def __init__(self, size: int, place: bool = False) -> None:
        self.size: Final = size
        self.place = place
        self._parent: Axis | None = None
        self.factors: tuple[Axis, ...] = ()
        self.parts: tuple[Axis, ...] = ()

    @property
    def root(self) -> Axis:
        """The axis that stands for all united ones."""
        axis = self
        while axis._parent is not None:
            axis = axis._parent
        if axis is not self:
            self._parent = axis
        return axis

    def unite(self, other: Axis) -> None:
        """Makes two axes of one size the same; structures that do not fit stay apart."""
        one, other = self.root, other.root
        if one is other:
            return
        if one.parts and other.parts:
            if [part.size for part in one.parts] != [part.size for part in other.parts]:
                return
            for mine, its in zip(one.parts, other.parts, strict=True):
                mine.unite(its)
        elif (one.parts and other.factors) or (one.factors and other.parts):
            return
        elif one.factors and other.factors:
            unite_dimensions(one.factors, other.factors)
        if other.factors or other.parts:
            one, other = other, one
        other._parent = one
        one.place |= other.place

    def cut(self, sizes: Sequence[int]) -> tuple[Axis, ...] | None:
        """Its parts of these sizes, or None if it is cut in another way."""
        root = self.root
        if root.factors:
            return None
        if not root.parts:
            root.parts = tuple(Axis(size) for size in sizes)
        return root.parts if [part.size for part in root.parts] == list(sizes) else None

    def split(self, size: int) -> bool:
        """Makes it a product whose first factor has this size, if it can be."""
        root = self.root
        if root.factors or root.size % size:
            return False
        if root.parts:  # equal parts are a product
            if len(root.parts) != size or len({part.size for part in root.parts}) > 1:
                return False
            for part in root.parts[1:]:
                part.unite(root.parts[0])
            root.factors, root.parts = (Axis(size, root.place), root.parts[0]), ()
            return True
        root.factors = Axis(size, root.place), Axis(root.size // size, root.place)
        return True


def fresh(size: int, place: bool = False) -> tuple[Axis, ...]:
    """The axes of a new dimension."""
    return (Axis(size, place),) if size > 1 else ()


def atoms(axes: Iterable[Axis]) -> list[Axis]:
    """The factors of a product of axes that are no products themselves."""
    flat: list[Axis] = []
    for axis in axes:
        root = axis.root
        flat += atoms(root.factors) if root.factors else [root]
    return flat


def split_at(axes: Iterable[Axis], sizes: Sequence[int]) -> list[list[Axis]] | None:
    """Groups a product of axes to products of these sizes; None if an axis cannot be split so."""
    rest, groups = atoms(axes)[::-1], []
    for size in sizes:
        group: list[Axis] = []
        while (left := size // prod(axis.size for axis in group)) > 1:
            if not rest:
                return None
            axis = rest.pop()
            if left % axis.size:
                if axis.size % left or not axis.split(left):
                    return None
                rest += axis.factors[::-1]
                continue
            group.append(axis)
        groups.append(group)
    return groups


def unite_dimensions(one: Iterable[Axis], other: Iterable[Axis]) -> None:
    """Makes two dimensions of one size, each a product of axes, the same."""
    left, right = atoms(one)[::-1], atoms(other)[::-1]
    while left and right:
        mine, its = left.pop(), right.pop()
        if mine.size == its.size:
            mine.unite(its)
        elif mine.size > its.size and mine.split(its.size):
            left += mine.factors[::-1]
            right.append(its)
        elif its.size > mine.size and its.split(mine.size):
            right += its.factors[::-1]
            left.append(mine)
        else:
            return
