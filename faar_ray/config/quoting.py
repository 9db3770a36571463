"""How messages quote keys, values and command-line overrides: on one line, printable, shortened, without passwords."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from faar_ray.config.secrets import without_secrets

KeyPath = tuple[str | int, ...]

LONGEST = 60
"""Characters of a value, or of a part of a key, that a message quotes."""
HIDDEN = ("base", "parameters")
"""Groups of a search space that hold keys of a trial config: their names are left out of messages."""


def format_override(override: str) -> str:
    """The beginning of a message about an override."""
    return f"command line: {_shortened(without_secrets(printable(override)), 3 * LONGEST)}"


def format_path(path: KeyPath) -> str:
    """A key as messages name it: `pdrs.beta`."""
    visible = path[1:] if len(path) > 1 and path[0] in HIDDEN else path
    return ".".join(_shortened(printable(str(part)), LONGEST) or "''" for part in visible)


def quote_value(value: Any) -> str:
    """A value as YAML would write it, text in quotes, shortened."""
    return _shortened(without_secrets(_as_yaml(value)), LONGEST)


def printable(text: str) -> str:
    """The text with escapes for whatever would break a line or not show."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _as_yaml(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{printable(str(key))}: {_as_yaml(below)}" for key, below in value.items()) + "}"
    return f"[{', '.join(map(_as_yaml, value))}]" if isinstance(value, list | tuple) else repr(value)


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."
