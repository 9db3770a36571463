"""What a dotted key of the command line names in a search-space file."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from faar_ray.config.quoting import KeyPath
from faar_ray.config.trial import TrialConfig
from faar_ray.tune.space.parameter import DEFAULTS, Parameter


def space_path(key: str, data: dict[str, Any]) -> KeyPath:
    """The path in the file that a dotted key of the command line means."""
    first, _, rest = key.partition(".")
    if first in TrialConfig.model_fields and first not in data:
        return ("base", *key.split("."))
    if first == "parameters" and rest:
        written = data.get("parameters")
        rest, when, condition = rest.partition(".when.")
        path = ("parameters", *_named(rest, {*(written if isinstance(written, dict) else ()), *DEFAULTS}))
        return (*path, "when", *_named(condition, DEFAULTS)) if when else path
    return tuple(key.split("."))


def _named(dotted: str, names: Iterable[str]) -> list[str]:
    """The longest known name that a dotted key begins with, then the rest part by part."""
    known = [name for name in names if dotted == name or dotted.startswith(f"{name}.")]
    if known:
        name = max(known, key=len)
        return [name, *(part for part in dotted[len(name) + 1 :].split(".") if part)]
    head, _, last = dotted.rpartition(".")
    return [head, last] if head and last in Parameter.model_fields else [dotted]
