"""The JSON schema of search-space files, from the config classes: editors complete and check with it.

`python -m faar_ray.tune.space.schema [FILE]` writes it (default search_spaces/schema.json).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from faar_ray.config.trial import TrialConfig
from faar_ray.tune.space.parameter import DEFAULTS, NOT_SEARCHED
from faar_ray.tune.space.space import SearchSpace


def space_schema() -> dict[str, Any]:
    """The schema of a search space, the trial config under `base` and its dotted keys under `parameters` included."""
    schema = SearchSpace.model_json_schema()
    trial = TrialConfig.model_json_schema()
    definitions: dict[str, Any] = {**schema.pop("$defs"), **trial.pop("$defs"), "TrialConfig": trial}
    properties, keys = schema["properties"], [key for key in DEFAULTS if key not in NOT_SEARCHED]
    definitions["Parameter"]["properties"]["when"]["anyOf"][0]["propertyNames"] = {"enum": keys}
    base = {"$ref": "#/$defs/TrialConfig", "description": properties["base"]["description"], "default": {}}
    properties["base"] = base
    for section in (schema, trial):
        section["properties"] = {key: _described(node, definitions) for key, node in section["properties"].items()}
    properties = schema["properties"]
    properties["parameters"] |= {
        "additionalProperties": False,
        "properties": {key: _parameter(key, definitions) for key in keys},
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "$defs": definitions}


def _described(node: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """A key that is a section, with that section's own description."""
    section = definitions.get(node.get("$ref", "").rpartition("/")[2], {})
    return {"description": section["description"], **node} if "description" in section else node


def _parameter(key: str, definitions: dict[str, Any]) -> dict[str, Any]:
    node = definitions["TrialConfig"]
    for part in key.split("."):
        node = definitions[node["$ref"].rpartition("/")[2]] if "$ref" in node else node
        node = node["properties"][part]
    return {"$ref": "#/$defs/Parameter", "description": f"{node.get('description', '')} Default: {DEFAULTS[key]}."}


def schema_text() -> str:
    """What schema.json holds."""
    return json.dumps(space_schema(), indent=2) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Write the schema; 0."""
    parser = argparse.ArgumentParser(
        prog="python -m faar_ray.tune.space.schema",
        description="Write the JSON schema of search spaces.",
        epilog="example: python -m faar_ray.tune.space.schema search_spaces/schema.json",
    )
    parser.add_argument("file", nargs="?", type=Path, default=Path("search_spaces/schema.json"))
    parser.parse_args(argv).file.write_text(schema_text(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
