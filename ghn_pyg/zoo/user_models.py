"""Builds networks with a factory of the user: ``module:package.module:factory``."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from types import ModuleType
from typing import Any

from torch import nn

from ..utils.suggest import suggestion


def build(module: str, factory: str) -> tuple[nn.Module, Any]:
    """Imports a module and calls a function of it. The current folder is searched first, as by ``python -m``.

    Args:
        module: Such as ``"package.module"``.
        factory: A function or class without required arguments, or a network. ``"Class.method"`` works too.

    Returns:
        The network, and the example inputs if the factory returned ``network, example_inputs``, or else None.

    Raises:
        ValueError: If there is no such module or function, or it does not return a network.

    Example:
        >>> build("torch.nn", "Identity")
        (Identity(), None)
    """
    folder = os.getcwd()
    sys.path.insert(0, folder)
    try:
        make = _find_factory(_import_module(module), module, factory)
        result = make if isinstance(make, nn.Module) else make()
    finally:
        if folder in sys.path:
            sys.path.remove(folder)
    network, inputs = result if isinstance(result, tuple) and len(result) == 2 else (result, None)
    if not isinstance(network, nn.Module):
        raise ValueError(
            f"{module}:{factory} must return a torch.nn.Module, or a tuple (module, example inputs), "
            f"got {type(result).__name__} {result!r:.80}"
        )
    return network, inputs


def _import_module(module: str) -> ModuleType:
    importlib.invalidate_caches()
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # the module exists; one that it imports does not
        raise ValueError(f"no module {error.name} in {os.getcwd()} or among the installed packages") from error


def _find_factory(module: ModuleType, module_name: str, factory: str) -> Any:
    value: Any = module
    for name in factory.split("."):
        if not hasattr(value, name):
            public = [other for other in dir(value) if not other.startswith("_")]
            raise ValueError(f"{module_name} has no {factory}{suggestion(name, public)}")
        value = getattr(value, name)
    if not callable(value):
        raise ValueError(f"{module_name}:{factory} must be a function that returns a network, got {value!r:.80}")
    if not isinstance(value, nn.Module):
        try:
            inspect.signature(value).bind()
        except TypeError as error:
            raise ValueError(f"{module_name}:{factory} must take no required arguments ({error})") from error
    return value
