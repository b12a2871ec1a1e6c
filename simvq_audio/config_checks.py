"""Checks that configurations share; each error names the key."""

from __future__ import annotations

from typing import Any

from simvq_audio.errors import ConfigError


def require(condition: bool, message: str) -> None:
    """Raise ``ConfigError(message)`` unless ``condition`` holds."""
    if not condition:
        raise ConfigError(message)


def require_choice(config: Any, name: str, choices: tuple[str, ...]) -> None:
    """The field is one of ``choices``."""
    value = getattr(config, name)
    require(
        value in choices,
        f"{type(config).__name__}.{name} must be one of {', '.join(choices)}, not {value!r}",
    )


def require_at_least(config: Any, name: str, minimum: int) -> None:
    """The field is a whole number of at least ``minimum``."""
    value = getattr(config, name)
    require(
        type(value) is int and value >= minimum,
        f"{type(config).__name__}.{name} must be a whole number of at least {minimum}, "
        f"not {value!r}",
    )


def require_number(config: Any, name: str, *, above_zero: bool = False) -> None:
    """The field is a finite number, not negative (or, with ``above_zero``, not zero either)."""
    value = getattr(config, name)
    fits = isinstance(value, (int, float)) and not isinstance(value, bool)
    require(
        fits and (0 < value if above_zero else 0 <= value) and value < float("inf"),
        f"{type(config).__name__}.{name} must be a number "
        f"{'above zero' if above_zero else 'of at least zero'}, not {value!r}",
    )


def whole_numbers(config: Any, name: str, minimum: int = 1) -> None:
    """The field is a non-empty sequence of whole numbers; it becomes a tuple."""
    value = getattr(config, name)
    require(
        _is_row(value, minimum),
        f"{type(config).__name__}.{name} must be a list of whole numbers of at least {minimum}, "
        f"not {value!r}",
    )
    object.__setattr__(config, name, tuple(value))


def whole_number_rows(config: Any, name: str, columns: tuple[str, ...]) -> None:
    """The field is a non-empty sequence of rows of positive whole numbers; it becomes tuples."""
    value = getattr(config, name)
    require(
        isinstance(value, (list, tuple))
        and len(value) > 0
        and all(_is_row(row, 1) and len(row) == len(columns) for row in value),
        f"{type(config).__name__}.{name} must be a list of [{', '.join(columns)}], not {value!r}",
    )
    object.__setattr__(config, name, tuple(tuple(row) for row in value))


def _is_row(value: Any, minimum: int) -> bool:
    return (
        isinstance(value, (list, tuple))
        and len(value) > 0
        and all(type(item) is int and item >= minimum for item in value)
    )
