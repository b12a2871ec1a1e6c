"""Recipes: the TOML files of training configurations."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from simvq_audio.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# In a wheel they are in the package, in a clone of the repository at its top.
_PACKAGE = Path(__file__).parents[1]
_RECIPES = (_PACKAGE / "recipes", _PACKAGE.parent / "recipes")


def find_recipe(name: str) -> Path:
    """The file of a recipe: a path, or the name of one that ships, such as "compact/cpu".

    Raises:
        ConfigError: there is none.
    """
    path = Path(name)
    if path.is_file() or path.suffix == ".toml":
        return path
    for folder in _RECIPES:
        if (folder / f"{name}.toml").is_file():
            return folder / f"{name}.toml"
    raise ConfigError(f"there is no recipe {name}; there are {', '.join(shipped_recipes())}")


def shipped_recipes() -> list[str]:
    """Names of the recipes that ship."""
    found = {
        path.relative_to(folder).with_suffix("").as_posix()
        for folder in _RECIPES
        for path in folder.rglob("*.toml")
    }
    return sorted(found)


def read_recipe(path: Path) -> dict[str, Any]:
    """The tables of a TOML file, merged over those of its ``base``, if it names one.

    Tables are merged key by key; everything else, lists included, replaces what the base has.
    ``base`` is a file, relative to the folder of this one, or the name of a recipe that ships.

    Raises:
        ConfigError: a file is missing or not TOML, or a file is its own base.
    """
    return _read_recipe(path, ())


def _read_recipe(path: Path, below: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in below:
        raise ConfigError(f"{path} is its own base")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    base = values.pop("base", None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise ConfigError(f"{path}: base must be the name of a file, not {base!r}")
    beside = path.parent / base
    found = beside if beside.is_file() or beside.suffix == ".toml" else find_recipe(base)
    return merged(_read_recipe(found, (*below, path.resolve())), values)


def merged(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Nested tables merged over others; see ``read_recipe``."""
    result = dict(base)
    for key, value in own.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        result[key] = merged(base[key], value) if both else value
    return result
