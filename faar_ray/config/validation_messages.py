"""From pydantic's errors to lines that a person can act on: `FILE:LINE:COLUMN: key: rule, value (did you mean 'x'?)`.

The rule is said from the field's JSON schema, so bounds, choices and key names are written once, in the config classes.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from faar_ray.config.overrides import PathOf
from faar_ray.config.yaml_document import (
    LONGEST,
    Document,
    KeyPath,
    Position,
    format_override,
    format_path,
    quote_value,
)
from faar_ray.errors import ConfigError

KEYED = re.compile(r"(name|resources|[a-z_]+(?:\.[a-z0-9_]+)+): (.+)")
BOUNDS = {"minimum": "<=", "exclusiveMinimum": "<", "maximum": "<=", "exclusiveMaximum": "<"}
TYPES = {
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "string": "text",
    "array": "a list",
    "object": "a mapping of keys to values",
    "null": "null",
}


@dataclass(frozen=True)
class Issue:
    """One thing to mend."""

    path: KeyPath
    text: str
    key: str = ""
    """The key as the message names it; empty: the path itself."""

    @property
    def name(self) -> str:
        """The key that the message begins with."""
        return self.key or format_path(self.path)


def raise_issues(faults: Iterable[Issue]) -> None:
    """Raise the faults out of a pydantic validator, if there are any; their paths count from that validator's field."""
    found = tuple(faults)
    if found:
        text = "; ".join(f"{fault.name}: {fault.text}" if fault.name else fault.text for fault in found)
        raise PydanticCustomError("faults", "{text}", {"text": text, "faults": found})


def with_more(error: ValidationError, faults: Iterable[Issue]) -> ValidationError:
    """The validation error with further faults in it, for a wrap validator to raise."""
    details: list[InitErrorDetails] = []
    for old in error.errors(include_url=False):
        context = old.get("ctx", {})
        kind = PydanticCustomError("faults", "{text}", context) if old["type"] == "faults" else old["type"]
        details.append({"type": kind, "loc": old["loc"], "input": old["input"], "ctx": context})
    for fault in faults:
        kind = PydanticCustomError("faults", "{text}", {"text": fault.text, "faults": (fault,)})
        details.append({"type": kind, "loc": (), "input": None})
    return ValidationError.from_exception_data(error.title, details)


def faults_of(error: ValidationError, model: type[BaseModel], raw: Any) -> list[Issue]:
    """Every fault of a validation, one per key, in the order of pydantic's report."""
    schema = model.model_json_schema()
    found: list[Issue] = []
    groups: dict[KeyPath, list[ErrorDetails]] = {}
    for detail in error.errors(include_url=False):
        path = _data_path(detail, raw)
        if detail["type"] == "faults":
            found += [Issue((*path, *fault.path), fault.text, fault.key) for fault in detail["ctx"]["faults"]]
        else:
            groups.setdefault(path, []).append(detail)
    above = {path[:end] for path in (*groups, *(fault.path for fault in found)) for end in range(len(path))}
    for path, details in groups.items():
        if path not in above:
            found.append(_fault(path, details, schema))
    return found


def lines_of(faults: Iterable[Issue], document: Document) -> list[str]:
    """The faults as messages with places, in the order of the file, then those of the command line."""
    placed = []
    for fault in faults:
        line, column = _place(fault, document)
        text = f"{fault.name}: {fault.text}" if fault.name else fault.text
        override = document.override(fault.path)
        if override is None:
            placed.append(((0, line, column), f"{document.file}:{line}:{column}: {text}"))
        else:
            words = fault.text if override[0] == fault.path else text
            placed.append(((1, document.overrides.index(override), 0), f"{format_override(override[1])}: {words}"))
    return list(dict.fromkeys(text for _, text in sorted(placed, key=lambda pair: pair[0])))


def locate(error: ConfigError, document: Document, path_of: PathOf) -> ConfigError:
    """The error of a later check with the place of each key that begins one of its lines."""
    lines: list[str] = []
    for text in error.faults:
        found = KEYED.fullmatch(text)
        parts = path_of(found[1], document.data) if found else ()
        path = tuple(int(part) if str(part).isdecimal() else part for part in parts)
        lines += lines_of([Issue(path, found[2])], document) if found else [text]
    return ConfigError(lines)


def _place(fault: Issue, document: Document) -> Position:
    """Where the fault stands; one that speaks of a key above stands there, if that is on the same line."""
    path, place = fault.path, document.place(fault.path)
    while fault.key and len(path) > 2 and document.place(path[:-1])[0] == place[0]:
        path = path[:-1]
        place = document.place(path)
    return place


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """` (did you mean 'x'?)` for the nearest of the names, or nothing."""
    near = get_close_matches(word, sorted(names), n=1, cutoff=0.6) if len(word) <= LONGEST else []
    return f" (did you mean {near[0]!r}?)" if near else ""


RENAMED = {"pdrs.init_rank": "ranks.init_rank"}
"""Keys of earlier versions, and what they are called now."""


def unknown_key(key: str, names: Iterable[str], section: str = "") -> str:
    """The rule that an unknown key of a section breaks."""
    if new := RENAMED.get(f"{section}.{key}" if section else key):
        return f"unknown key: it is called {new} now"
    known, (first, dot, rest) = set(names), key.partition(".")
    if dot and first in known:
        return f"unknown key: write it nested, {first}: {{{rest}: ...}}"
    return f"unknown key{did_you_mean(key, known)}"


def reference_faults(given: Iterable[str], tasks: Sequence[str], above: KeyPath = ()) -> Iterator[Issue]:
    """What a table of single-task metrics, a number for each task, has too much or too little."""
    yield from (Issue((*above, key), unknown_key(key, tasks)) for key in given if key not in tasks)
    if missing := [task for task in tasks if task not in given]:
        yield Issue(above, f"must have a number for every task, missing {', '.join(missing)}")


def _data_path(detail: ErrorDetails, raw: Any) -> KeyPath:
    """The error's place in the data: pydantic's own labels of union branches are left out."""
    path: list[str | int] = []
    here = raw
    for part in detail["loc"]:
        if part in _keys(here):
            here = here[part]
        elif detail["type"] != "missing" or part is not detail["loc"][-1]:
            continue
        path.append(part)
    return tuple(path)


def _keys(data: Any) -> Container[str | int]:
    return data if isinstance(data, Mapping) else range(len(data)) if isinstance(data, list | tuple) else ()


def _fault(path: KeyPath, details: list[ErrorDetails], schema: dict[str, Any]) -> Issue:
    kinds = {detail["type"]: detail for detail in details}
    if "missing" in kinds:
        return Issue(path, "required key is missing")
    if "extra_forbidden" in kinds:
        return Issue(
            path, unknown_key(str(path[-1]), _names(schema, path[:-1]), str(path[-2]) if len(path) > 1 else "")
        )
    if "value_error" in kinds:
        return _own_fault(path, kinds["value_error"])
    value = details[0]["input"]
    options = list(_options(schema, _at(schema, path)))
    bounded = kinds.keys() & {"greater_than", "greater_than_equal", "less_than", "less_than_equal"}
    rule = _bounds(options, path) if bounded else "be finite" if "finite_number" in kinds else _wanted(options)
    why = next((f" ({option['why']})" for option in options if "why" in option), "")
    hint = did_you_mean(value, _choices(options)) if isinstance(value, str) else ""
    return Issue(path, f"must {rule}, got {quote_value(value)}{why}{hint}")


def _own_fault(path: KeyPath, detail: ErrorDetails) -> Issue:
    """A validator's `ValueError("some.key: text")` is a fault of that key."""
    text = str(detail["ctx"]["error"])
    key, colon, rest = text.partition(": ")
    if colon and all(part.isidentifier() for part in key.split(".")):
        return Issue((*path, *key.split(".")), rest)
    return Issue(path, text)


def _bounds(options: list[dict[str, Any]], path: KeyPath) -> str:
    option = next((option for option in options if option.keys() & BOUNDS.keys()), {})
    name = option.get("symbol") or next((part for part in reversed(path) if isinstance(part, str)), "value")
    low = next((f"{option[key]:g} {BOUNDS[key]} " for key in ("minimum", "exclusiveMinimum") if key in option), "")
    high = next((f" {BOUNDS[key]} {option[key]:g}" for key in ("maximum", "exclusiveMaximum") if key in option), "")
    if high:
        return f"satisfy {low}{name}{high}"
    number, sign = low.split()
    return f"satisfy {name} {sign.replace('<', '>')} {number}"


def _wanted(options: list[dict[str, Any]]) -> str:
    """What the field takes, in words."""
    choices = _choices(options)
    words = [f"one of {', '.join(choices)}"] if len(choices) > 1 else choices
    words += [str(option["const"]) for option in options if "const" in option and str(option["const"]) not in choices]
    for option in options:
        kind = option.get("type")
        if "enum" in option or "const" in option or kind not in TYPES:
            continue
        if kind == "integer" and any(other.get("type") == "number" for other in options):
            continue
        words.append(option.get("words") or _list_words(option) or TYPES[kind])
    return "be " + " or ".join(dict.fromkeys(words)) if words else "be valid"


def _list_words(option: dict[str, Any]) -> str:
    if "maxItems" in option:
        return f"a list of {option.get('minItems', 0)} to {option['maxItems']}"
    return "a list that is not empty" if option.get("minItems") else ""


def _choices(options: list[dict[str, Any]]) -> list[str]:
    found = [choice for option in options for choice in option.get("enum", [option.get("const")])]
    return [choice for choice in found if isinstance(choice, str)]


def _names(schema: dict[str, Any], path: KeyPath) -> list[str]:
    return [name for option in _options(schema, _at(schema, path)) for name in option.get("properties", {})]


def _at(schema: dict[str, Any], path: KeyPath) -> dict[str, Any]:
    """The schema of the field at a path; empty where any value may stand."""
    node = schema
    for part in path:
        node = next(_steps(schema, node, part), {})
    return node


def _steps(schema: dict[str, Any], node: dict[str, Any], part: str | int) -> Iterator[dict[str, Any]]:
    for option in _options(schema, node):
        if part in option.get("properties", {}):
            yield option["properties"][part]
        elif isinstance(part, int) and "items" in option:
            yield option["items"]
        elif isinstance(option.get("additionalProperties"), dict):
            yield option["additionalProperties"]


def _options(schema: dict[str, Any], node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The alternatives of a field, references and unions resolved; extra words of the field go along."""
    if "$ref" in node:
        yield from _options(schema, schema["$defs"][node["$ref"].rpartition("/")[2]])
    elif "anyOf" in node:
        extra: dict[str, Any] = {key: node[key] for key in ("why", "words", "symbol") if key in node}
        for option in node["anyOf"]:
            yield from _options(schema, {**extra, **option})
    else:
        yield node
