"""Networks that a function of the user's own makes."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import os
import sys
from collections.abc import Iterator
from typing import Any

from torch import nn

from ..utils.suggest import suggestion


def make(module: str, factory: str) -> tuple[nn.Module, Any]:
    """Imports a module, with the current folder on the path as ``python -m`` has it, and calls a function of it.

    Args:
        module: Such as ``"package.module"``.
        factory: A function or class without required arguments, or a network; ``"Class.method"`` works too.

    Returns:
        The network, and example inputs if it gave some (as ``network, example_inputs``).

    Raises:
        ValueError: If there is no such module or function, or it gives no network.

    Example:
        >>> make("torch.nn", "Identity")
        (Identity(), None)
    """
    with _current_folder_on_path():
        found = _attribute(_import(module), module, factory)
        result = found if isinstance(found, nn.Module) else _call(found, f"{module}:{factory}")
    network, inputs = result if isinstance(result, tuple) and len(result) == 2 else (result, None)
    if not isinstance(network, nn.Module):
        came = f"{type(result).__name__} {result!r:.80}"
        raise ValueError(f"{module}:{factory} must return a torch.nn.Module, or one with example inputs, got {came}")
    return network, inputs


def _import(module: str) -> Any:
    importlib.invalidate_caches()
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # something that the module itself imports
        raise ValueError(f"there is no module {error.name} in {os.getcwd()} or among what is installed") from error


def _call(factory: Any, name: str) -> Any:
    try:
        inspect.signature(factory).bind()
    except TypeError as error:
        raise ValueError(f"{name} must take no arguments, and {error}; write a function that calls it") from error
    return factory()


def _attribute(found: Any, module: str, path: str) -> Any:
    for name in path.split("."):
        if not hasattr(found, name):
            public = [one for one in dir(found) if not one.startswith("_")]
            raise ValueError(f"{module} has no {path}{suggestion(name, public)}")
        found = getattr(found, name)
    if not callable(found):
        raise ValueError(f"{module}:{path} is no function that makes a network, but {type(found).__name__}")
    return found


@contextlib.contextmanager
def _current_folder_on_path() -> Iterator[None]:
    folder = os.getcwd()
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        if folder in sys.path:
            sys.path.remove(folder)
