import textwrap

import pytest

from ghn_pyg.caching.bytecode import Load, digest, loads


def code(source):
    """The code of the function that a source defines."""
    names = {}
    exec(compile(textwrap.dedent(source), "source.py", "exec"), names)  # noqa: S102
    return names["f"].__code__


@pytest.mark.parametrize(
    "other",
    [
        "def f(x): return x + 3",
        "def f(x): return x - 2",
        "def f(x): return x + 2.0",
        "def f(y): return y + 2",
        "def f(x, *y): return x + 2",
        "def f(x, /): return x + 2",
        "def f(*, x): return x + 2",
        "async def f(x): return x + 2",
        "def f(x): return (lambda: x + 2)()",
        "def f(x): return a(x + 2)",
    ],
)
def test_other_code_has_another_digest(other):
    assert digest(code(other)) != digest(code("def f(x): return x + 2"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("return x in {2, 3}", "return x in {2, 5}"),
        ("return x in {2}", "return x in (2,)"),
        ("return x * 0.0", "return x * -0.0"),
        ("return x * 1", "return x * True"),
        ("return a.b(x)", "return a.c(x)"),
        ("return [i for i in x]", "return [i + 1 for i in x]"),
    ],
)
def test_constants_and_inner_code_count(one, other):
    assert digest(code(f"def f(x): {one}")) != digest(code(f"def f(x): {other}"))


def test_places_and_comments_do_not_count():
    assert digest(code("\n\ndef f(x):  # two\n\n    return (x +\n 2)")) == digest(code("def f(x): return x + 2"))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("return x", []),
        ("return a", [Load(("a",))]),
        ("return torch.nn.functional.relu(x).size()", [Load(("torch", "nn", "functional", "relu"))]),
        ("return a.b + c.d(a.e)", [Load(("a", "b")), Load(("c", "d")), Load(("a", "e"))]),
        ("return a.b(a.b)", [Load(("a", "b"))]),
        ("return a[0].b", [Load(("a",))]),
        ("return lambda: a.b", [Load(("a", "b"))]),
        ("return [a.b for i in x]", [Load(("a", "b"))]),
        ("global a; a = x", [Load(("a",))]),
        ("import os", [Load(("os",), 0)]),
        ("import os.path", [Load(("os.path",), 0)]),
        ("from os import path, sep", [Load(("os", "path"), 0), Load(("os", "sep"), 0)]),
        ("from .parts import a", [Load(("parts", "a"), 1)]),
        ("from .. import a", [Load(("", "a"), 2)]),
    ],
)
def test_names_from_outside(body, expected):
    assert list(loads(code(f"def f(x): {body}"))) == expected


def test_names_of_a_class_inside():
    found = loads(code("def f(x):\n    class A(base.B):\n        c = d\n    return A"))
    assert {Load(("base", "B")), Load(("d",))} <= set(found)


def test_paths_that_need_large_numbers():
    names = " + ".join(f"a{number}.b" for number in range(300))
    assert loads(code(f"def f(x): return {names} + last.one.two"))[-1] == Load(("last", "one", "two"))
