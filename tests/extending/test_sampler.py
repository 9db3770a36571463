"""The sampler of docs/extending.md, added from outside the package."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from faar_ray.errors import ConfigError
from faar_ray.tune.propose.samplers import SAMPLERS
from faar_ray.tune.space.space import SearchSpace, read_space

TESTS = Path(__file__).parents[1]
GUIDE = (TESTS.parent / "docs" / "extending.md").read_text()
spec = importlib.util.spec_from_file_location("tune_fixtures", TESTS / "tune" / "conftest.py")
assert spec is not None
assert spec.loader is not None
fixtures = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fixtures)
space, space_file, driver = fixtures.space, fixtures.space_file, fixtures.driver


@pytest.fixture
def listing() -> Iterator[dict[str, Any]]:
    """The names that the guide's code defines, run as it stands there."""
    section = GUIDE.split("\n## A sampler\n")[1].split("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    names: dict[str, Any] = {"__name__": "my_search"}
    shipped = dict(SAMPLERS)
    exec(compile(code, "docs/extending.md", "exec"), names)
    yield names
    for added in SAMPLERS.keys() - shipped.keys():
        del SAMPLERS[added]


def test_a_search_runs_with_the_sampler_of_the_guide(
    listing: dict[str, Any], space: Callable[..., SearchSpace], driver: Callable[..., Any], tmp_path: Path
) -> None:
    small = space(search={"sampler": "tpe_univariate", "startup_trials": 2}, scheduler={"type": "none"})
    rows = [result.params for result in driver(small, tmp_path / "a.log").run().proposer.results()]
    assert len(rows) == 6
    assert len({str(row) for row in rows}) == 6
    tpe = driver(space(scheduler={"type": "none"}), tmp_path / "b.log").run()
    assert [result.params for result in tpe.proposer.results()][:2] == rows[:2]  # the prior, then a random one


def test_its_name_is_known_where_the_file_is_checked(
    listing: dict[str, Any], space_file: Callable[..., Path], tmp_path: Path
) -> None:
    path = space_file(tmp_path / "a.yaml", search={"sampler": "tpe_univariate"})
    assert read_space(path).search.sampler == "tpe_univariate"
    with pytest.raises(ConfigError, match=r"search\.population=8: must be null for sampler tpe_univariate"):
        read_space(path, ["search.population=8"])


def test_without_it_the_name_is_a_fault_at_its_line(space_file: Callable[..., Path], tmp_path: Path) -> None:
    path = space_file(tmp_path / "a.yaml", search={"sampler": "tpe_univariate"})
    line = 1 + next(n for n, text in enumerate(path.read_text().splitlines()) if "sampler:" in text)
    with pytest.raises(ConfigError, match=rf"a\.yaml:{line}:3: search\.sampler: must be one of tpe, nsga2, .*, got"):
        read_space(path)


def test_a_misspelt_name_of_an_added_sampler_is_recognised(
    listing: dict[str, Any], space_file: Callable[..., Path], tmp_path: Path
) -> None:
    path = space_file(tmp_path / "a.yaml", search={"sampler": "tpe_univariat"})
    with pytest.raises(ConfigError, match=r"got 'tpe_univariat' \(did you mean 'tpe_univariate'\?\)"):
        read_space(path)
