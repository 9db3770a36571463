"""What a `method` and a `recipe` stand for: defaults, as data."""

from faar_ray.config.presets.differences import Difference, differences
from faar_ray.config.presets.methods import PRESETS
from faar_ray.config.presets.recipes import RECIPES, Recipe, Setting

__all__ = ["PRESETS", "RECIPES", "Difference", "Recipe", "Setting", "differences"]
