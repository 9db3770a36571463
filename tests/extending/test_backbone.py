"""The backbone of docs/extending.md, added from outside the package."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from faar_ray.config.trial import TrialConfig
from faar_ray.errors import ConfigError
from faar_ray.train.preflight import preflight

Guide = Callable[[str], dict[str, Any]]


def test_a_trial_trains_on_the_backbone_of_the_guide(guide: Guide, train: Callable[..., Any]) -> None:
    guide("A backbone")
    records = train(**{"backbone.name": "mlp_net"})
    rows = records[-1].ranks
    assert {row.layer for row in rows} == {"fc1", "fc2"}
    assert {row.task for row in rows} == {"shared", "semseg", "normals"}


@pytest.mark.parametrize(
    ("dotted", "message"),
    [
        ({"placement.task_blocks": "all"}, r"placement\.task_blocks: must be last on mlp_net, got 'all'"),
        ({"placement.task_path": "shared"}, r"placement\.task_path: must be own on mlp_net, got 'shared'"),
        (
            {"method": "sinewich_1x1", "sinewich.conv_size": 3, "sinewich.layers": ["fc1"]},
            r"sinewich\.conv_size: must be 1 on mlp_net",
        ),
        ({"backbone.name": "mlp_nett"}, r"or mlp_net, got 'mlp_nett'"),
    ],
)
def test_what_it_cannot_take_is_refused_before_anything_starts(
    guide: Guide, dotted: dict[str, Any], message: str
) -> None:
    guide("A backbone")
    with pytest.raises(ConfigError, match=message):
        preflight(TrialConfig.resolve({"backbone": {"name": "mlp_net"}}, **dotted))
