from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from faar_ray.tune.space.parameter import DEFAULTS, NOT_SEARCHED
from faar_ray.tune.space.schema import main, schema_text, space_schema

SHIPPED = Path(__file__).parents[3] / "search_spaces" / "schema.json"


def test_the_shipped_schema_is_current() -> None:
    assert SHIPPED.read_text() == schema_text(), "write it again: python -m faar_ray.tune.space.schema"


def test_the_schema_knows_every_key_of_a_trial_config() -> None:
    schema = space_schema()
    assert schema["properties"]["base"]["$ref"] == "#/$defs/TrialConfig"
    assert set(schema["properties"]["parameters"]["properties"]) == set(DEFAULTS) - set(NOT_SEARCHED)
    beta = schema["$defs"]["PdrsConfig"]["properties"]["beta"]
    assert (beta["default"], beta["minimum"]) == (0.98, 0)


def test_every_reference_in_the_schema_leads_somewhere() -> None:
    text = schema_text()
    names = {part.split('"')[0] for part in text.split("#/$defs/")[1:]}
    assert names <= set(space_schema()["$defs"])


def test_the_command_writes_the_file(tmp_path: Path) -> None:
    assert main([str(tmp_path / "s.json")]) == 0
    assert json.loads((tmp_path / "s.json").read_text())["title"] == "SearchSpace"


def keys(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Every key of a schema and of its sections, and whether it must be given."""
    for name, node in {"": schema, **schema["$defs"]}.items():
        for key, below in node.get("properties", {}).items():
            yield f"{name}.{key}", below, key in node.get("required", ())


def test_every_key_has_a_meaning_and_a_default_or_must_be_given() -> None:
    result = list(keys(space_schema()))
    assert len(result) > 100
    assert [name for name, node, _ in result if not node.get("description")] == []
    assert [name for name, node, needed in result if "default" not in node and not needed] == []


def test_the_schema_takes_what_is_shipped_and_refuses_what_is_misspelt() -> None:
    validator = pytest.importorskip("jsonschema").Draft202012Validator(space_schema())
    spaces = [yaml.safe_load(path.read_text()) for path in SHIPPED.parent.glob("*.yaml")]
    assert len(spaces) >= 6
    for space in spaces:
        assert list(validator.iter_errors(space)) == []
        (key, parameter), *_ = space["parameters"].items()
        for wrong in (
            {"objective": space["objectives"]},
            {"base": {**space["base"], "optim": {"epoch": 6}}},
            {"base": {**space["base"], "pdrs": {"beta": 1.5}}},
            {"parameters": {key: {**parameter, "priro": 1}}},
            {"parameters": {key + "s": parameter}},
            {"search": {"sampler": "tpo"}},
            {"budget": {"trials": "8"}},
        ):
            assert list(validator.iter_errors({**space, **wrong})) != [], wrong
