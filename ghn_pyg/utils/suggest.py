"""Names in messages: those that a misspelt one may have meant, and the first of many."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Sequence

_MOST_BEGUN = 5
_MOST_ALIKE = 3


def similar(name: str, known: Iterable[str], cutoff: float = 0.6) -> list[str]:
    """Names to suggest for one that does not exist: those that it begins, then those that are spelt alike.

    Args:
        name: The name that does not exist; upper and lower case do not matter.
        known: The names that do.
        cutoff: How much alike a spelling must be, from 0 to 1; see :func:`difflib.get_close_matches`.

    Example:
        >>> similar("ghn3", ["ghn1", "ghn2", "ghn3tm8", "ghn3xlm16"])
        ['ghn3tm8', 'ghn3xlm16', 'ghn2', 'ghn1']
    """
    wanted, lower = name.lower(), {one.lower(): one for one in known}
    begun = [one for one in lower if wanted and one.startswith(wanted)][:_MOST_BEGUN]
    alike = difflib.get_close_matches(wanted, lower, _MOST_ALIKE, cutoff)
    return [lower[one] for one in dict.fromkeys([*begun, *alike])][:_MOST_BEGUN]


def suggestion(name: object, known: Iterable[str], prefix: str = "", cutoff: float = 0.6) -> str:
    """What to end a message with that says that there is no such name; nothing where no name is like it.

    Args:
        name: The name that does not exist.
        known: The names that do.
        prefix: What stands before each name in the message.
        cutoff: As for :func:`similar`.

    Example:
        >>> suggestion("reznet50", ["resnet50", "vgg11"], "timm/")
        '; did you mean timm/resnet50?'
        >>> suggestion("xyz", ["resnet50", "vgg11"])
        ''
    """
    near = similar(str(name), known, cutoff)
    return f"; did you mean {' or '.join(prefix + one for one in near)}?" if near else ""


def choice(name: object, known: Collection[str]) -> str:
    """What to end a message with that says that there is no such name: those that are like it, else all that there are.

    Example:
        >>> choice("xyz", ["resnet50", "vgg11"])
        '; expected one of resnet50, vgg11'
    """
    return suggestion(name, known) or f"; expected one of {', '.join(known)}"


def some(names: Sequence[str], limit: int = 3) -> str:
    """The first of the names, and how many more there are.

    Example:
        >>> some(["a", "b", "c", "d"])
        'a, b, c and 1 more'
    """
    more = f" and {len(names) - limit:,} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
