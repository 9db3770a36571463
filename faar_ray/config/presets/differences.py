"""Where a config trains otherwise than a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from faar_ray.config.presets.recipes import RECIPES


@dataclass(frozen=True, slots=True)
class Difference:
    """A key that has another value than in the recipe."""

    key: str
    recipe: Any
    config: Any
    source: str
    """Of the recipe's value."""


def differences(recipe: str, dotted: Mapping[str, Any]) -> list[Difference]:
    """Every difference between a recipe and a config (`TrialConfig.dotted()`), in the recipe's order."""
    return [
        Difference(key, setting.value, dotted[key], setting.source)
        for key, setting in RECIPES.get(recipe, {}).items()
        if dotted[key] not in (setting.value, [setting.value] * 2)  # an image size of [448, 448] is 448
    ]
