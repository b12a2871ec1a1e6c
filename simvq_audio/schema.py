"""How configurations are declared: frozen dataclasses that pydantic checks when they are built."""

from __future__ import annotations

import dataclasses
from functools import cache, wraps
from typing import Annotated, Any, TypeVar

from pydantic import ConfigDict, Discriminator, Field, Strict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass
from typing_extensions import dataclass_transform

from simvq_audio.errors import ConfigError

_T = TypeVar("_T")

# Strict: "5", 5.0 and true are not integers, and true is not a number.
Natural = Annotated[int, Field(strict=True, ge=0)]
Count = Annotated[int, Field(strict=True, ge=1)]
NonNegative = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(strict=True, ge=0, le=1)]
Flag = Annotated[bool, Strict()]
Counts = Annotated[tuple[Count, ...], Field(min_length=1)]


@dataclass_transform(frozen_default=True, kw_only_default=True)
def configuration(cls: type[_T]) -> type[_T]:
    """Make ``cls`` a frozen dataclass whose constructor raises ``ConfigError``.

    Every field is checked against its annotation, and unknown ones are refused. ``__post_init__``
    raises ``ValueError`` for rules between fields.
    """
    made: Any = pydantic_dataclass(
        cls, frozen=True, kw_only=True, config=ConfigDict(extra="forbid", validate_default=False)
    )
    construct = made.__init__

    @wraps(construct)
    def __init__(self: Any, **values: Any) -> None:
        try:
            construct(self, **values)
        except ValidationError as error:
            raise ConfigError(_describe(error, values, cls.__name__)) from None

    # Nested tables are not validated here, so that errors in them name their
    # whole path.
    made.__init__ = __init__  # type: ignore[method-assign]
    return made


def parse(cls: type[_T], values: Any, where: str) -> _T:
    """Build a configuration from nested plain values, as TOML and JSON hold them.

    Args:
        where: what error messages call ``values``.

    Raises:
        ConfigError: a key is unknown, of the wrong type or out of range; the message names it and
            its tables.
    """
    try:
        return _adapter(cls).validate_python(values)  # type: ignore[arg-type]
    except ValidationError as error:
        raise ConfigError(_describe(error, values, where)) from None


def plain(config: Any) -> dict[str, Any]:
    """A configuration as nested plain values that ``parse`` takes back, without None."""
    return {name: _plain(value) for name, value in _fields(config) if value is not None}


def by_kind(default: str) -> Discriminator:
    """Discriminates a union by ``kind``; ``default`` if a table has none."""

    def kind(value: Any) -> Any:
        if isinstance(value, dict):
            return value.get("kind", default)
        return getattr(value, "kind", None)

    return Discriminator(kind)


def _fields(config: Any) -> list[tuple[str, Any]]:
    return [(field.name, getattr(config, field.name)) for field in dataclasses.fields(config)]


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return plain(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


@cache
def _adapter(cls: type[_T]) -> TypeAdapter[_T]:
    return TypeAdapter(cls)


def _describe(error: ValidationError, values: Any, where: str) -> str:
    """The first error, in one line."""
    first = error.errors(include_url=False)[0]
    message, kind = first["msg"], first["type"]
    parts = _path(first["loc"], values)
    if kind in ("missing", "missing_keyword_only_argument"):
        parts.append(str(first["loc"][-1]))
    path = ".".join([where, *parts])
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"unknown key {path}"
    if kind == "value_error":
        return f"{path}: {message.removeprefix('Value error, ')}"
    if kind in ("missing", "missing_keyword_only_argument"):
        return f"{path} is missing"
    if kind == "union_tag_invalid":
        tags = first["ctx"]["expected_tags"]
        return f"{path}.kind must be one of {tags}, not {first['input'].get('kind')!r}"
    if kind.startswith(("dataclass", "union_tag")):
        return f"{path} must be a table of settings, not {first['input']!r}"
    return f"{path} {message.replace('Input should', 'must')}, not {first['input']!r}"


def _path(parts: tuple[int | str, ...], values: Any) -> list[str]:
    """The keys of a location; pydantic also lists the kinds of a union's members."""
    kept: list[str] = []
    for part in parts:
        found, inner = _look_up(values, part)
        if found:
            kept.append(str(part))
            values = inner
    return kept


def _look_up(values: Any, part: int | str) -> tuple[bool, Any]:
    if isinstance(values, dict):
        return part in values, values.get(part)
    if isinstance(values, (list, tuple)) and isinstance(part, int):
        return part < len(values), values[part] if part < len(values) else None
    if isinstance(part, str) and hasattr(values, part):
        return True, getattr(values, part)
    return False, None
