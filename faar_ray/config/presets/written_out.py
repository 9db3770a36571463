"""Configs that were written out in full before some keys existed: these keys are at their defaults there."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any


def presets_beside(
    raw: Mapping[str, Any], preset: Mapping[str, Any], added: Collection[str], keys: Mapping[str, Collection[str]]
) -> dict[str, Any]:
    """The preset without what it says of added keys, in sections where the user wrote all keys that are older.

    Args:
        raw: what the user wrote.
        preset: of the method.
        added: dotted keys that came later.
        keys: of each section.
    """
    beside = dict(preset)
    for section, values in preset.items():
        written = raw.get(section)
        if not isinstance(values, Mapping) or not isinstance(written, Mapping):
            continue
        later = {key for key in keys[section] if f"{section}.{key}" in added}
        if set(keys[section]) - later <= set(written):
            beside[section] = {key: value for key, value in values.items() if key not in later}
    return beside
