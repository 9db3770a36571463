"""From pydantic's errors to lines that a person can act on: `FILE:LINE:COLUMN: key: rule, value (did you mean 'x'?)`.

Each rule is a template for pydantic's error type and context; a field whose rule needs other words carries `rule(...)`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, get_args

from pydantic import BaseModel, ValidationError, ValidatorFunctionWrapHandler, WrapValidator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from faar_ray.config.common_names import COMMON, MAIN_KEYS
from faar_ray.config.overrides import PathOf
from faar_ray.config.quoting import LONGEST, KeyPath, format_override, format_path, quote_value
from faar_ray.config.yaml_document import Document, Position
from faar_ray.errors import ConfigError

KEYED = re.compile(r"(name|resources|[a-z_]+(?:\.[a-z0-9_]+)+): (.+)")
BOUNDS = {
    "greater_than": "satisfy {key} > {gt:g}",
    "greater_than_equal": "satisfy {key} >= {ge:g}",
    "less_than": "satisfy {key} < {lt:g}",
    "less_than_equal": "satisfy {key} <= {le:g}",
    "finite_number": "be finite",
}
TYPES = {
    "bool_type": "true or false",
    "int_type": "an integer",
    "float_type": "a number",
    "string_type": "text",
    "string_too_short": "text that is not empty",
    "list_type": "a list",
    "tuple_type": "a list",
    "too_short": "a list that is not empty",
    "dict_type": "a mapping of keys to values",
    "model_type": "a mapping of keys to values",
    "model_attributes_type": "a mapping of keys to values",
    "none_required": "null",
}
"""What a field takes, by the type of pydantic's error; the alternatives of a union are joined by `or`."""


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


def rule(words: str) -> WrapValidator:
    """What messages say a field must be, in place of pydantic's own rules.

    Args:
        words: `a folder's name`, or `satisfy 0 < rho <= 1`, which is said of numbers out of bounds only.
    """

    def validate(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(value)
        except ValidationError as error:
            details = error.errors(include_url=False)
            elsewhere = any(detail["loc"] or detail["type"] == "value_error" for detail in details)
            of_bounds = all(detail["type"] in BOUNDS for detail in details)
            if elsewhere or (words.startswith("satisfy") and not of_bounds):
                raise
            raise PydanticCustomError("rule", "{text}", {"text": words}) from None

    return WrapValidator(validate)


def raise_issues(faults: Iterable[Issue]) -> None:
    """Raise the faults out of a pydantic validator, if there are any; their paths count from that validator's field."""
    issues = tuple(faults)
    if issues:
        text = "; ".join(f"{fault.name}: {fault.text}" if fault.name else fault.text for fault in issues)
        raise PydanticCustomError("faults", "{text}", {"text": text, "faults": issues})


def with_more(error: ValidationError, faults: Iterable[Issue]) -> ValidationError:
    """The validation error with further faults in it, for a wrap validator to raise."""
    details: list[InitErrorDetails] = []
    for old in error.errors(include_url=False):
        context = old.get("ctx", {})
        custom = old["type"] in ("faults", "rule")
        kind = PydanticCustomError(old["type"], "{text}", context) if custom else old["type"]
        details.append({"type": kind, "loc": old["loc"], "input": old["input"], "ctx": context})
    for fault in faults:
        kind = PydanticCustomError("faults", "{text}", {"text": fault.text, "faults": (fault,)})
        details.append({"type": kind, "loc": (), "input": None})
    return ValidationError.from_exception_data(error.title, details)


def issues_of(error: ValidationError, model: type[BaseModel], raw: Any) -> list[Issue]:
    """Every fault of a validation, one per key, in the order of pydantic's report."""
    issues: list[Issue] = []
    groups: dict[KeyPath, list[ErrorDetails]] = {}
    for detail in error.errors(include_url=False):
        path = _data_path(detail, raw)
        if detail["type"] == "faults":
            issues += [Issue((*path, *fault.path), fault.text, fault.key) for fault in detail["ctx"]["faults"]]
        else:
            groups.setdefault(path, []).append(detail)
    above = {path[:end] for path in (*groups, *(fault.path for fault in issues)) for end in range(len(path))}
    for path, details in groups.items():
        if path not in above:
            issues.append(_fault(path, details, model))
    return issues


def format_issues(faults: Iterable[Issue], document: Document) -> list[str]:
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
        match = KEYED.fullmatch(text)
        parts = path_of(match[1], document.data) if match else ()
        path = tuple(int(part) if str(part).isdecimal() else part for part in parts)
        lines += format_issues([Issue(path, match[2])], document) if match else [text]
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
    if len(word) > LONGEST:
        return ""
    among = sorted(names)
    same = [name for name in among if name.lower() == word.lower()]
    return _either(same[:1] or get_close_matches(word, among, n=1, cutoff=0.6))


def _either(names: Sequence[str]) -> str:
    return f" (did you mean {' or '.join(map(repr, names))}?)" if names else ""


RENAMED = {"pdrs.init_rank": "ranks.init_rank"}
"""Keys of earlier versions, and what they are called now."""


def unknown_key(
    key: str, names: Iterable[str], section: str = "", everywhere: Mapping[str, str] = MappingProxyType({})
) -> str:
    """The rule that an unknown key of a section breaks, and what was meant.

    Args:
        key: as written.
        names: the section's keys.
        section: its name, "" for the file itself.
        everywhere: dotted keys of the whole file, each as messages name it.
    """
    if new := RENAMED.get(f"{section}.{key}" if section else key):
        return f"unknown key: it is called {new} now"
    known, (first, dot, rest) = set(names), key.partition(".")
    if dot and first in known:
        return f"unknown key: write it nested, {first}: {{{rest}: ...}}"
    return f"unknown key{key_hint(key, known, section, everywhere)}"


def key_hint(
    key: str, names: Collection[str], section: str = "", everywhere: Mapping[str, str] = MappingProxyType({})
) -> str:
    """` (did you mean 'x'?)` for a key: what its name means in other tools, a key of that name elsewhere, a near name.

    Args: see `unknown_key`.
    """
    last = key.rpartition(".")[2]
    inside = {f"{section}.{name}" if section else name: name for name in names}
    pool = {**everywhere, **inside}

    wanted = COMMON.get(last, ())
    common = [name for name in wanted if name in names] or [pool[name] for name in wanted if name in pool]
    if common:
        return _either(common)
    elsewhere = [shown for name, shown in pool.items() if name.rpartition(".")[2] == last and shown != key]
    return _either(elsewhere[:3]) or did_you_mean(key, names)


def dotted_names(model: type[BaseModel]) -> dict[str, str]:
    """Every dotted key of a file, each as messages name it: keys of a search space's trials begin with `base.`."""
    names = {name: name for name in _dotted(model)}
    trial = getattr(model, "base_model", None)
    return names if trial is None else {**{name: f"base.{name}" for name in _dotted(trial)}, **names}


def _dotted(model: type[BaseModel]) -> Iterator[str]:
    for name, field in _fields(model).items():
        yield str(name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from (f"{name}.{below}" for below in _dotted(field.annotation))


def reference_faults(given: Iterable[str], tasks: Sequence[str], above: KeyPath = ()) -> Iterator[Issue]:
    """What a table of single-task metrics, a number for each task, has too much or too little."""
    yield from (Issue((*above, key), unknown_key(key, tasks)) for key in given if key not in tasks)
    if missing := [task for task in tasks if task not in given]:
        yield Issue(above, f"must have a number for every task, missing {', '.join(missing)}")


def _data_path(detail: ErrorDetails, raw: Any) -> KeyPath:
    """The error's place in the data: pydantic's own labels of union branches are left out."""
    path: list[str | int] = []
    value = raw
    for part in detail["loc"]:
        if part in _keys(value):
            value = value[part]
        elif detail["type"] != "missing" or part is not detail["loc"][-1]:
            continue
        path.append(part)
    return tuple(path)


def _keys(data: Any) -> Container[str | int]:
    return data if isinstance(data, Mapping) else range(len(data)) if isinstance(data, list | tuple) else ()


def _fault(path: KeyPath, details: list[ErrorDetails], model: type[BaseModel]) -> Issue:
    kinds = {detail["type"]: detail for detail in details}
    if "missing" in kinds:
        return Issue(path, "required key is missing")
    if "extra_forbidden" in kinds:
        section = str(path[-2]) if len(path) > 1 else ""
        names = map(str, _fields(_section(model, path[:-1])))
        return Issue(path, unknown_key(str(path[-1]), names, section, dotted_names(model)))
    if "value_error" in kinds:
        return _own_fault(path, kinds["value_error"])

    value = details[0]["input"]
    choices = [choice for detail in details for choice in _choices(detail)]
    hint = did_you_mean(value, choices) if isinstance(value, str) else ""
    if kinds.keys() & {"model_type", "model_attributes_type"} and isinstance(value, str | int | float):
        hint = _either([main] if (main := MAIN_KEYS.get(".".join(map(str, path)))) else [])
    return Issue(path, f"must {_rule(path, details, choices, model)}, got {quote_value(value)}{hint}")


def _own_fault(path: KeyPath, detail: ErrorDetails) -> Issue:
    """A validator's `ValueError("some.key: text")` is a fault of that key."""
    text = str(detail["ctx"]["error"])
    key, colon, rest = text.partition(": ")
    if colon and all(part.isidentifier() for part in key.split(".")):
        return Issue((*path, *key.split(".")), rest)
    return Issue(path, text)


def _rule(path: KeyPath, details: Sequence[ErrorDetails], choices: Sequence[str], model: type[BaseModel]) -> str:
    """What the value must do or be; a number out of bounds is of the right type, so its bound is the whole rule."""
    key = next((part for part in reversed(path) if isinstance(part, str)), "value")
    texts = [detail["ctx"]["text"] for detail in details if detail["type"] == "rule"]
    texts += [
        BOUNDS[detail["type"]].format(key=key, **detail.get("ctx", {}))
        for detail in details
        if detail["type"] in BOUNDS
    ]
    if bound := next((words for words in texts if words.startswith(("satisfy", "be finite"))), ""):
        return bound

    types = [detail["type"] for detail in details]
    words = [f"one of {', '.join(choices)}"] if len(choices) > 1 else list(choices)
    words += [TYPES[kind] for kind in types if kind in TYPES and not (kind == "int_type" and "float_type" in types)]
    words += texts
    text = " or ".join(dict.fromkeys(words)) or "valid"
    return f"be {text} or null" if " or " not in text and _takes_null(model, path) else f"be {text}"


def _choices(detail: ErrorDetails) -> list[str]:
    """The values of a `Literal`, out of pydantic's text `'a', 'b' or 'c'`."""
    expected = detail["ctx"]["expected"] if detail["type"] == "literal_error" else ""
    return [choice.strip("'") for choice in re.split(", | or ", expected) if choice]


def _section(model: type[BaseModel], path: KeyPath) -> type[BaseModel]:
    """The class of the section at a path; keys of mappings and numbers of lists stay in the section above."""
    for part in path:
        if part in (fields := _fields(model)):
            model = next(_models(fields[part].annotation), model)
    return model


def _fields(model: type[BaseModel]) -> dict[str | int, FieldInfo]:
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def _takes_null(model: type[BaseModel], path: KeyPath) -> bool:
    field = _fields(_section(model, path[:-1])).get(path[-1]) if path else None
    return field is not None and type(None) in get_args(field.annotation)
