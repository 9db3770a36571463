"""The lists that compare methods leave out no method that their backbone can have."""

from __future__ import annotations

from pathlib import Path

import pytest

from faar_ray.config.presets.methods import PRESETS
from faar_ray.config.trial import TrialConfig
from faar_ray.errors import ConfigError
from faar_ray.models.backbone import family_of
from faar_ray.models.family import check_placement
from faar_ray.tune.share.stages import planned_demands
from faar_ray.tune.space.space import read_space

SPACES = Path(__file__).parents[3] / "search_spaces"
REFERENCE = "single_task"


@pytest.mark.parametrize("name", ["methods", "methods_nyud"])
def test_a_list_has_every_method_or_names_it_among_those_that_its_backbone_refuses(name: str) -> None:
    path = SPACES / f"{name}.yaml"
    space = read_space(path)
    configs = [demand.config for demand in planned_demands(space) if demand.config.seed == 0]
    family = family_of(configs[0].backbone.name)
    for config in configs:
        check_placement(family, config)

    comment = path.read_text().partition("version:")[0]
    for method in PRESETS.keys() - {config.method for config in configs} - {REFERENCE}:
        assert method in comment
        with pytest.raises(ConfigError):
            check_placement(family, TrialConfig.resolve(space.base, method=method))


def test_the_list_on_photographs_has_the_base_of_the_shorter_one() -> None:
    """So that rows of both may be compared."""
    base, other = (read_space(SPACES / f"{name}.yaml").base for name in ("methods_nyud", "photographs"))
    assert base == other
