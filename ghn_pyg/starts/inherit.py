"""Initialises a network from a trained one: deeper, wider, shallower, narrower, or of another family."""

from __future__ import annotations

import dataclasses
from typing import Any, Final

import torch
from torch import Tensor, nn

from ..models.write_checks import check_writable
from ..tracing.trace import arguments
from ..utils.compat import outside_of_modes
from ..utils.nested_tensors import copy_with_tensors
from .align import align
from .axis_tracker import follow_axes
from .resize import Resizer

_ENOUGH: Final = 32  # images to measure activations on


@dataclasses.dataclass(frozen=True)
class Inheritance:
    """What a network inherits from another one; see :func:`inherit`.

    Args:
        values: New values of parameters and buffers by name, on the CPU.
        sources: The teacher's tensor that each of them comes from.
        identities: Parameters that make a new block or layer pass on its input unchanged.
        own: Parameters without a counterpart, which keep their values.
    """

    values: dict[str, Tensor]
    sources: dict[str, str]
    identities: frozenset[str]
    own: tuple[str, ...]

    def __str__(self) -> str:
        own = f": {', '.join(self.own[:3])}{', …' if len(self.own) > 3 else ''}" if self.own else ""
        return (
            f"{len(self.sources)} tensors come from the teacher, {len(self.identities)} parameters make new blocks "
            f"identities, {len(self.own)} parameters keep their values{own}"
        )


def inherit(model: nn.Module, teacher: nn.Module, example_inputs: Any = None) -> nn.Module:
    r"""Initialises a network from a trained one, without training (Net2Net, arXiv 1511.05641).

    Each parameter and each statistic of a norm comes from its counterpart in the teacher. Networks of one family are
    aligned by the names of their modules, block by block; others layer by layer, in the order of their forward passes.

    - **Deeper**: new residual blocks are copies of a neighbour whose last layer is zero, and new layers in a chain are
      identities: the network computes what the teacher does. A residual block whose last layer has no counterpart
      begins as an identity too.
    - **Wider**: a channel that stands :math:`c` times is read with weights :math:`w\,(1 + \epsilon_i)/c`, where the
      noise :math:`\epsilon` sums to 0 over its copies: the function stays, and gradients part the copies. Queries and
      keys are rescaled for the wider heads. With layer norms the function stays where each channel stands equally
      often, as at twice the width.
    - **Narrower**: the most important channels stay, and the weights that read them take over what the others said,
      by least squares on the teacher's activations on ``example_inputs``.
    - Kernels are padded with zeros or cropped, positions of an image are interpolated, tables of tokens keep their
      first rows.

    A layer for another number of classes keeps its values.

    Args:
        model: The network; it is changed in place.
        teacher: The trained network; it stays as it is.
        example_inputs: Inputs of both, as :func:`~ghn_pyg.from_module` takes them. For a narrower network give a batch
            of 32 or more of your own; with fewer images, noise with the spectrum of natural images is measured.

    Returns:
        ``model``.

    Raises:
        TypeError: If a network is no module, or ``example_inputs`` contains no tensor.
        ValueError: If a forward pass fails, a parameter has no memory or cannot be written, or nothing fits. The
            network is unchanged then.

    Example:
        >>> teacher = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))
        >>> wider = nn.Sequential(nn.Linear(3, 11), nn.ReLU(), nn.Linear(11, 2))
        >>> inputs = torch.randn(7, 3)
        >>> torch.allclose(inherit(wider, teacher, inputs)(inputs), teacher(inputs), atol=1e-5)
        True
    """
    return write(model, inheritance(model, teacher, example_inputs))


def write(model: nn.Module, plan: Inheritance) -> nn.Module:
    """Writes what a network inherits into it, after a check that all of it can be written."""
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    check_writable(model, {name: tensors[name] for name in plan.values})
    with torch.no_grad():
        for name, value in plan.values.items():
            tensors[name].copy_(value)
    return model


def inheritance(model: nn.Module, teacher: nn.Module, example_inputs: Any = None) -> Inheritance:
    """What :func:`inherit` writes, without writing it.

    Example:
        >>> teacher = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))
        >>> other = nn.Sequential(nn.Linear(3, 7), nn.ReLU(), nn.Linear(7, 4))
        >>> print(inheritance(other, teacher, torch.randn(1, 3)))  # doctest: +NORMALIZE_WHITESPACE
        2 tensors come from the teacher, 0 parameters make new blocks identities,
        2 parameters keep their values: 2.weight, 2.bias
    """
    inputs = [arguments(each, example_inputs) for each in (model, teacher)]
    for role, each in {"network": model, "teacher": teacher}.items():
        if without := [
            name for name, tensor in each.named_parameters() if tensor.is_meta or nn.parameter.is_lazy(tensor)
        ]:
            raise ValueError(
                f"the {role} has parameters without memory ({', '.join(without[:3])}); build it on a device, and run "
                "it once if it has lazy layers"
            )
    student, trained = ({**dict(each.named_parameters()), **dict(each.named_buffers())} for each in (model, teacher))
    with outside_of_modes():
        ours, theirs = (follow_axes(each, *given) for each, given in zip((model, teacher), inputs, strict=True))
        counterparts = align(student, trained, (ours.order, theirs.order))
        pairs = [(student[name].shape, trained[counterpart.name].shape) for name, counterpart in counterparts.items()]
        if any(one < other for sizes in pairs for one, other in zip(*sizes, strict=False)):
            args, kwargs = copy_with_tensors(_representative, inputs[1])
            theirs = follow_axes(teacher, args, kwargs, moments=True)
    resizer = Resizer(student, trained, counterparts, ours, theirs, dict(model.named_buffers()))
    values = resizer.values()
    if not values:
        raise ValueError(
            f"no parameter of {type(model).__name__} has a counterpart in {type(teacher).__name__}; the teacher must "
            "have layers of the same kinds"
        )
    parameters = dict(model.named_parameters())
    identities = resizer.identities(model, values)
    sources = {name: counterparts[name].name for name in values if name in counterparts}
    return Inheritance(values, sources, identities, tuple(name for name in parameters if name not in values))


def _representative(tensor: Tensor) -> Tensor:
    """Images to measure activations on: the given ones if they are enough, else grey noise of the spectrum 1/f.

    Natural images have such a spectrum, and colours that go together.
    """
    if tensor.dim() != 4 or not tensor.is_floating_point() or (len(tensor) >= _ENOUGH and not tensor.is_meta):
        return tensor
    generator = torch.Generator().manual_seed(0)
    height, width = tensor.shape[-2:]
    noise = torch.fft.rfft2(torch.randn(_ENOUGH, 1, height, width, generator=generator))
    rows, columns = torch.fft.fftfreq(height)[:, None] * height, torch.fft.rfftfreq(width) * width
    images = torch.fft.irfft2(noise / (rows**2 + columns**2).sqrt().clamp(min=1), s=(height, width))
    return (images / images.std()).expand(-1, tensor.shape[1], -1, -1).contiguous()
