"""Sizes that no trial of a search can be cut to are faults of the file, found before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from faar_ray.config.trial import merge_sections
from faar_ray.errors import ConfigError
from faar_ray.tune.__main__ import main
from faar_ray.tune.run.front_sizes import check_sizes, size_range
from faar_ray.tune.space.space import SearchSpace
from tests.tune.conftest import TINY

LR = {"optim.lr": {"min": 1e-4, "max": 1e-2, "log": True}}


def raw(sizes: Any, **parameters: Any) -> dict[str, Any]:
    base = {"ranks": {"kind": "fixed", "init_rank": 4}}
    return merge_sections(TINY, {"base": base}) | {"parameters": LR | parameters, "front": {"sizes": sizes}}


def space(sizes: Any, **parameters: Any) -> SearchSpace:
    return SearchSpace.model_validate(raw(sizes, **parameters))


def test_a_size_above_the_full_one_or_below_a_component_for_each_adapter_is_refused() -> None:
    found = size_range(space([0.5]).trial_config({}))
    with pytest.raises(ConfigError) as error:
        check_sizes(space([found.full - 1, found.full, found.smallest - 1, 0.01]))
    assert [text.partition(",")[0] for text in error.value.faults] == [
        "front.sizes.1: must be below the full size",
        f"front.sizes.2: must leave at least {found.smallest} of {found.full} adapter parameters",
        f"front.sizes.3: must leave at least {found.smallest} of {found.full} adapter parameters",
    ]
    check_sizes(space([found.full - 1, found.smallest]))
    check_sizes(space("auto"))


def test_where_ranks_are_searched_a_size_needs_one_trial_that_is_larger() -> None:
    full = size_range(space([0.5]).trial_config({})).full
    check_sizes(space([full + 100], **{"ranks.init_rank": {"values": [4, 8]}}))


def test_the_fault_is_told_at_its_line_and_a_dry_run_lists_points_and_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("space.yaml").write_text(yaml.safe_dump(raw([0.5, 10_000_000]), sort_keys=False))
    line = 1 + Path("space.yaml").read_text().splitlines().index("  - 10000000")
    assert main(["space.yaml", "--dry-run"]) == 2
    assert f"space.yaml:{line}:5: front.sizes.1: must be below the full size" in capsys.readouterr().err

    Path("space.yaml").write_text(yaml.safe_dump(raw([0.45, 0.7]), sort_keys=False))
    assert main(["space.yaml", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "budget 45%  cut after the last epoch, not trained after it" in printed
    assert "epochs: 3, of them 0 of its points; 9 if each size trained alone" in printed

    assert main(["space.yaml", "--dry-run", "front.forks={0.45: 0.5}"]) == 0
    printed = capsys.readouterr().out
    assert "budget 45%  cut after epoch 2 of 3, then 1 epoch" in printed
    assert "bound: 6 trials x 3 epochs and 1 of their points = 24 epochs" in printed
