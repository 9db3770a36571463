"""Command-line overrides, `key=value`, on top of a document."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

from faar_ray.config.quoting import KeyPath, format_override, format_path, quote_value
from faar_ray.config.yaml_document import Document, Position, read_override
from faar_ray.errors import ConfigError

PathOf = Callable[[str, dict[str, Any]], KeyPath]


def dotted_path(key: str, data: dict[str, Any]) -> KeyPath:
    """`pdrs.beta` -> ("pdrs", "beta")."""
    return tuple(key.split("."))


def apply_overrides(document: Document, overrides: Sequence[str], path_of: PathOf = dotted_path) -> Document:
    """The document with every override set; faults of what they set will name them.

    Raises:
        ConfigError: an override that is not `key=value`, all of them at once.
    """
    data, places, done = deepcopy(document.data), dict(document.places), list(document.overrides)
    faults: list[str] = []
    for text in overrides:
        try:
            key, value = read_override(text)
            done.append((_set(data, places, path_of(key, data), value, text), text))
        except ConfigError as error:
            faults += error.faults
    if faults:
        raise ConfigError(faults)
    return Document(document.file, data, places, tuple(done))


def _set(data: dict[str, Any], places: dict[KeyPath, Position], path: KeyPath, value: Any, text: str) -> KeyPath:
    """Set a value, make mappings on the way; elements of lists are named by their number.

    What a mapping takes the place of is no longer the file's, so it leaves `places`.
    """
    section: Any = data
    done: KeyPath = ()
    for part in path[:-1]:
        step = _step(section, part, done, text)
        below = section.get(step) if isinstance(section, dict) else section[step]
        if not isinstance(below, dict | list):
            section[step] = {}
            places.pop((*done, step), None)
        section, done = section[step], (*done, step)
    step = _step(section, path[-1], done, text)
    section[step] = value
    return (*done, step)


def _step(section: Any, part: str | int, above: KeyPath, text: str) -> Any:
    if not isinstance(section, list):
        return part
    if isinstance(part, str) and part.isascii() and part.isdecimal() and len(part) < 7 and int(part) < len(section):
        return int(part)
    what = f"{format_path(above)} is a list of {len(section)}, and {quote_value(part)} is none of its numbers"
    raise ConfigError(f"{format_override(text)}: {what}")
