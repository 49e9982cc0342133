"""Rules for functions that make a sparse or nested tensor of an activation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor

from ...utils.compat import NESTED_FACTORIES
from ..other_layouts import interpret
from ..tracer import Rule, Tracer, rule

_NAMES: Final = "to_sparse to_sparse_coo to_sparse_csr to_sparse_csc to_sparse_bsr to_sparse_bsc"
_FACTORIES: Final = "coo csr csc bsr bsc compressed"


def _made(function: Callable[..., Any]) -> Rule:
    def made(tracer: Tracer, *args: Any, **kwargs: Any) -> Any:
        return interpret(tracer, tracer.__torch_function__, function, args, kwargs)

    return made


for _function in (
    *(getattr(Tensor, name) for name in _NAMES.split()),
    *(getattr(torch, f"sparse_{name}_tensor") for name in _FACTORIES.split()),
    *NESTED_FACTORIES,
):
    rule(_function)(_made(_function))
