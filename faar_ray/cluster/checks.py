"""Checks for both kinds of cluster file."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from faar_ray.cluster.node_types import PRICE
from faar_ray.config.quoting import KeyPath, quote_value
from faar_ray.config.validation_messages import Issue

NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,38}[A-Za-z0-9])?")
"""Names that are valid in file mounts, machine names and tags."""


def price(labels: Any, path: KeyPath, faults: list[Issue]) -> float | None:
    """USD per hour on the price label; None without one."""
    text = mapping(labels).get(PRICE)
    if text is None:
        return None
    try:
        usd = float(text) if isinstance(text, str) else math.nan
    except ValueError:
        usd = math.nan
    if not 0 <= usd < math.inf:
        faults.append(
            Issue((*path, PRICE), f'must be a price in USD as quoted text ("0.526"), got {quote_value(text)}')
        )
        return None
    return usd


def name(data: Any, path: KeyPath, faults: list[Issue]) -> str:
    """The cluster's name; "" if it is invalid."""
    if isinstance(data, str) and NAME.fullmatch(data):
        return data
    rule = "must be 1 to 40 letters, digits, '-', '_' or '.'"
    if isinstance(data, str) and ":" in data:
        rule += " (a colon breaks file_mounts)"
    faults.append(Issue(path, rule + (", it is missing" if data is None else f", got {quote_value(data)}")))
    return ""


def count(data: Mapping[str, Any], key: str, path: KeyPath, faults: list[Issue], why: str) -> int:
    """A required whole number of nodes; 0 if it is missing or invalid."""
    value = data.get(key)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    rule = f"must be written: {why}" if key not in data else f"must be a whole number from 0, got {quote_value(value)}"
    faults.append(Issue((*path, key), rule))
    return 0


def mapping(value: Any) -> dict[str, Any]:
    """The value if it is a mapping, else an empty one."""
    return value if isinstance(value, dict) else {}


def listing(value: Any) -> list[Any]:
    """The value if it is a list, else an empty one."""
    return value if isinstance(value, list) else []
