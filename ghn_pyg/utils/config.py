"""The base of all configurations: frozen pydantic models whose errors are one clear line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from .suggest import choice


class ConfigError(ValueError):
    """A field of a configuration is unknown, missing or has a bad value."""


class Config(BaseModel):
    """A frozen configuration with typed fields.

    Values are not converted, with two exceptions: a field of type ``float`` takes integers, and a field of type
    ``tuple`` takes lists if it is declared with ``Field(strict=False)``.

    A validator of a field raises ``ValueError("expected ...")``. A validator of the whole model begins its message
    with the name of the field: ``ValueError("warmup_epochs expected at most 3, got 5")``.

    Example:
        >>> from pydantic import Field
        >>> class Optimizer(Config):
        ...     rate: float = Field(0.1, ge=0)
        >>> Optimizer(rate=2).to_dict()
        {'rate': 2.0}
        >>> Optimizer(rate=-1)
        Traceback (most recent call last):
        ghn_pyg.utils.config.ConfigError: Optimizer.rate expected a value greater than or equal to 0, got -1
        >>> Optimizer(rat=1)
        Traceback (most recent call last):
        ghn_pyg.utils.config.ConfigError: Optimizer has no field 'rat'; did you mean rate?
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError("; ".join(_message(type(self), details) for details in error.errors())) from None

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values, ready for JSON and YAML."""
        return self.model_dump(mode="json")

    @classmethod
    def from_dict(cls, values: Mapping[Any, Any]) -> Self:
        """The inverse of :meth:`to_dict`; a missing field has its default."""
        return cls(**{str(name): value for name, value in values.items()})

    def replace(self, **changes: Any) -> Self:
        """A validated copy with other values in some fields."""
        return type(self)(**{name: getattr(self, name) for name in type(self).model_fields} | changes)


def _message(config: type[BaseModel], error: ErrorDetails) -> str:
    path, reason = ".".join(map(str, error["loc"])), error.get("ctx", {}).get("error")
    if isinstance(reason, ConfigError):  # of a nested configuration
        return str(reason)
    if error["type"] == "extra_forbidden":
        return f"{config.__name__} has no field {path!r}{choice(path, config.model_fields)}"
    if error["type"] == "missing":
        return f"{config.__name__}.{path} is missing"
    if not path:
        return f"{config.__name__}.{reason or error['msg']}"
    expected = str(reason or error["msg"].replace("Input should be", "expected"))
    if not expected.startswith("expected "):
        return f"{config.__name__}.{path}: {expected}"
    for comparison in ("greater", "less"):
        expected = expected.replace(f"expected {comparison}", f"expected a value {comparison}")
    expected, mark, hint = expected.partition("; did you mean")
    return f"{config.__name__}.{path} {expected}, got {error['input']!r}{mark}{hint}"
