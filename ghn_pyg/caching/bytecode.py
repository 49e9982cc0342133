"""What compiled Python code says, and which names from outside it loads."""

from __future__ import annotations

import dis
import functools
import hashlib
import types
from typing import Any, Final, NamedTuple

_GLOBAL: Final = frozenset((
    "LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS", "STORE_GLOBAL", "DELETE_GLOBAL",
))  # fmt: skip
_ATTRIBUTE: Final = frozenset(("LOAD_ATTR", "LOAD_METHOD"))
_FILLERS: Final = frozenset(("CACHE", "EXTENDED_ARG", "NOP"))
_KNOWN_CODE: Final = 1 << 15


class Load(NamedTuple):
    """A name that code loads from outside.

    Args:
        path: A global name, or an imported module, and the attributes that are taken from it at once.
        level: ``None`` for a global name; for an import how many dots its module's name starts with.
    """

    path: tuple[str, ...]
    level: int | None = None


@functools.lru_cache(_KNOWN_CODE)
def digest(code: types.CodeType) -> str:
    r"""A hash of what ``code`` does: equal code in another place, or with other line numbers, has the same.

    Example:
        >>> digest(compile("x + 1", "a.py", "eval")) == digest(compile("\n\nx  +  1", "b.py", "eval"))
        True
        >>> digest(compile("x + 1", "a.py", "eval")) == digest(compile("x + 1.0", "a.py", "eval"))
        False
    """
    parts = (
        code.co_code, code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars, code.co_flags,
        code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_exceptiontable,
    )  # fmt: skip
    text = f"{parts!r} {_constant(code.co_consts)}"
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _constant(value: Any) -> str:
    if isinstance(value, types.CodeType):
        return digest(value)
    if isinstance(value, tuple):
        return f"({','.join(map(_constant, value))})"
    if isinstance(value, frozenset):
        return f"{{{','.join(sorted(map(_constant, value)))}}}"
    return f"{type(value).__name__} {value!r}"


@functools.lru_cache(_KNOWN_CODE)
def loads(code: types.CodeType) -> tuple[Load, ...]:
    """Names that ``code``, and all code inside it, loads from outside, each once.

    Example:
        >>> loads((lambda x: torch.nn.functional.relu(x).size()).__code__)
        (Load(path=('torch', 'nn', 'functional', 'relu'), level=None),)
    """
    found: dict[Load, None] = {}
    steps = [step for step in dis.get_instructions(code) if step.opname not in _FILLERS]
    for position, step in enumerate(steps):
        if step.opname in _GLOBAL:
            found[Load((step.argval, *_attributes(steps, position + 1)))] = None
        elif step.opname == "IMPORT_NAME":
            level, names = steps[position - 2].argval, steps[position - 1].argval
            found.update(dict.fromkeys(Load((step.argval, name), level) for name in names or ()))
            if not names:
                found[Load((step.argval,), level)] = None
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found.update(dict.fromkeys(loads(constant)))
    return tuple(found)


def _attributes(steps: list[dis.Instruction], start: int) -> list[str]:
    names = []
    for step in steps[start:]:
        if step.opname not in _ATTRIBUTE:
            break
        names.append(step.argval)
    return names
