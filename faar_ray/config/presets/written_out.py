"""Configs that were written out in full before some keys existed: these keys are at their defaults there."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from faar_ray.config.presets.added_keys import ADDED


def preset_beneath(
    raw: Mapping[str, Any], preset: Mapping[str, Any], keys: Mapping[str, Collection[str]]
) -> dict[str, Any]:
    """What a preset says beneath `raw`: of added keys nothing, where `raw` has all that are older.

    Args:
        raw: what is written.
        preset: of its method.
        keys: of each section.
    """
    older = {section: {key for key in of if f"{section}.{key}" not in ADDED} for section, of in keys.items()}
    if not all(of <= set(_section(raw, section)) for section, of in older.items()):
        return dict(preset)
    return {
        section: {key: value for key, value in values.items() if f"{section}.{key}" not in ADDED}
        for section, values in preset.items()
    }


def _section(raw: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = raw.get(name)
    return section if isinstance(section, Mapping) else {}
