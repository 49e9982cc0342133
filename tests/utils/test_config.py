import math
from typing import Annotated, Literal

import pytest
from pydantic import Field, PositiveInt, field_validator, model_validator

from ghn_pyg.utils.config import Config, ConfigError


class Inner(Config):
    widths: Annotated[tuple[PositiveInt, ...], Field(strict=False)] = (3, 5)


class Outer(Config):
    size: PositiveInt
    rate: float = 0.5
    kind: Literal["adam", "sgd"] = "adam"
    name: str | None = None
    inner: Inner = Inner()

    @field_validator("name")
    @classmethod
    def _known(cls, name):
        if name == "nobody":
            raise ValueError("expected the name of somebody")
        return name

    @model_validator(mode="after")
    def _consistent(self):
        if self.kind == "sgd" and self.rate > 1:
            raise ValueError("rate expected at most 1 with sgd")
        return self


def test_values_become_plain_and_come_back():
    config = Outer(size=7, inner={"widths": [11, 13]})
    assert config.inner.widths == (11, 13)
    plain = {"size": 7, "rate": 0.5, "kind": "adam", "name": None, "inner": {"widths": [11, 13]}}
    assert config.to_dict() == plain
    assert Outer.from_dict(plain) == config
    assert config.replace(size=17) == Outer(size=17, inner=Inner(widths=(11, 13)))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": 0}, "Outer.size expected a value greater than 0, got 0"),
        ({"size": True}, "Outer.size expected a valid integer, got True"),
        ({"size": 2.0}, "Outer.size expected a valid integer, got 2.0"),
        ({"size": 2, "rate": math.inf}, "Outer.rate expected a finite number, got inf"),
        ({"size": 2, "rate": "1e-3"}, "Outer.rate expected a valid number, got '1e-3'"),
        ({"size": 2, "kind": "adm"}, "Outer.kind expected 'adam' or 'sgd', got 'adm'"),
        ({"size": 2, "name": "nobody"}, "Outer.name expected the name of somebody, got 'nobody'"),
        ({"size": 2, "kind": "sgd", "rate": 2.0}, "Outer.rate expected at most 1 with sgd"),
        ({"size": 2, "inner": {"widths": [3, -5]}}, "Inner.widths.1 expected a value greater than 0, got -5"),
        ({"size": 2, "inner": {"width": [3]}}, "Inner has no field 'width'; did you mean widths?"),
        ({}, "Outer.size is missing"),
    ],
)
def test_an_error_is_one_line(values, message):
    with pytest.raises(ConfigError) as caught:
        Outer(**values)
    assert str(caught.value) == message


def test_fields_cannot_be_set():
    with pytest.raises(ValueError, match="frozen"):
        Outer(size=2).size = 3
