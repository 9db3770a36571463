from __future__ import annotations

import json
from pathlib import Path

from faar_ray.tune.parameter import DEFAULTS
from faar_ray.tune.schema import main, schema_text, space_schema

SHIPPED = Path(__file__).parents[2] / "search_spaces" / "schema.json"


def test_the_shipped_schema_is_current() -> None:
    assert SHIPPED.read_text() == schema_text(), "write it again: python -m faar_ray.tune.schema"


def test_the_schema_knows_every_key_of_a_trial_config() -> None:
    schema = space_schema()
    assert schema["properties"]["base"]["$ref"] == "#/$defs/TrialConfig"
    assert set(schema["properties"]["parameters"]["properties"]) == set(DEFAULTS) - {"seed"}
    beta = schema["$defs"]["PdrsConfig"]["properties"]["beta"]
    assert (beta["default"], beta["minimum"]) == (0.98, 0)


def test_every_reference_in_the_schema_leads_somewhere() -> None:
    text = schema_text()
    names = {part.split('"')[0] for part in text.split("#/$defs/")[1:]}
    assert names <= set(space_schema()["$defs"])


def test_the_command_writes_the_file(tmp_path: Path) -> None:
    assert main([str(tmp_path / "s.json")]) == 0
    assert json.loads((tmp_path / "s.json").read_text())["title"] == "SearchSpace"
