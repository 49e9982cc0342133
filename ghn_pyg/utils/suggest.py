"""Names in messages: suggestions for a misspelt name, shortened lists, and characters that no terminal obeys."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Sequence

_MAX_SUGGESTIONS = 5


def similar(name: str, known: Iterable[str], cutoff: float = 0.6) -> list[str]:
    """Known names that start with an unknown one, then those with a similar spelling, in upper or lower case."""
    name, lower = name.lower(), {other.lower(): other for other in known}
    longer = [other for other in lower if name and other.startswith(name)][:_MAX_SUGGESTIONS]
    alike = difflib.get_close_matches(name, lower, cutoff=cutoff)
    return [lower[other] for other in dict.fromkeys([*longer, *alike])][:_MAX_SUGGESTIONS]


def suggestion(name: object, known: Iterable[str], prefix: str = "", cutoff: float = 0.6) -> str:
    """The end of a message about an unknown name, with a prefix before each suggestion; empty if no name is similar.

    Example:
        >>> suggestion("reznet50", ["resnet50", "vgg11"], "timm/")
        '; did you mean timm/resnet50?'
        >>> suggestion("xyz", ["resnet50", "vgg11"])
        ''
    """
    names = similar(str(name), known, cutoff)
    return f"; did you mean {' or '.join(prefix + other for other in names)}?" if names else ""


def choice(name: object, known: Collection[str]) -> str:
    """The end of a message about an unknown name: similar names, or all names if none is similar.

    Example:
        >>> choice("xyz", ["resnet50", "vgg11"])
        '; expected one of resnet50, vgg11'
    """
    return suggestion(name, known) or f"; expected one of {', '.join(known)}"


def some(names: Sequence[str], limit: int = 3) -> str:
    """The first names of a list and the number of the others.

    Example:
        >>> some(["a", "b", "c", "d"])
        'a, b, c and 1 more'
    """
    more = f" and {len(names) - limit:,} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def printable(text: str, limit: int = 2000) -> str:
    r"""A text for a terminal: control characters escaped, and without the middle if it is longer than ``limit``.

    Example:
        >>> printable("a\x1b[2Jb")
        'a\\x1b[2Jb'
    """
    text = _without_middle(text, limit)  # before and after, because escaping a very long text takes long
    return _without_middle("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text), limit)


def _without_middle(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit // 2]} … {text[-limit // 2 :]}"
