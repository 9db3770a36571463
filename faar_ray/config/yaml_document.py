"""A YAML file as plain data that remembers the line and column of every key.

Values follow YAML 1.2's core schema (`2e-5` is a number; `on`, `yes` and dates are text). Reading gives data or raises
`ConfigError`; PyYAML's own exceptions never leave this file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from faar_ray.config.quoting import LONGEST, KeyPath, format_override, format_path, printable, quote_value
from faar_ray.config.text_file import line_column, read_text
from faar_ray.errors import ConfigError

Position = tuple[int, int]
"""Line and column, both from 1."""

MOST_NODES = 20_000
MOST_LEVELS = 20
CORE = "tag:yaml.org,2002:"
NO_TEXT = re.compile(r"[\x00\ud800-\udfff]")
"""The null character and lone surrogates: escapes can write them, but no path or file can hold them."""
NUMBER_KEY, SHARE_KEY = re.compile(r"[0-9]{1,9}"), re.compile(r"0?\.[0-9]{1,9}")
"""Keys below the top that are numbers, taken as text: the stages of `ranks.init_rank: {0: 2, 1: 2, 2: 3, 3: 16}`, and
with shares the sizes of `front.forks: {0.15: 0.5}`."""
CORE_SCALARS: dict[str, tuple[str, list[str]]] = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    "float": (
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
}


@dataclass(frozen=True)
class Document:
    """What a file holds, with the overrides of a command line on top."""

    file: str
    data: dict[str, Any]
    places: Mapping[KeyPath, Position] = field(default_factory=dict)
    """Where each key (or list element) begins."""
    overrides: tuple[tuple[KeyPath, str], ...] = ()
    """The keys that a command line set, each with the words that set it."""

    def place(self, path: KeyPath) -> Position:
        """Line and column of a key, or of the nearest key above it that was written."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path, (1, 1))

    def override(self, path: KeyPath) -> tuple[KeyPath, str] | None:
        """The override that set this key, or that made the group it is."""
        above = (pair for pair in reversed(self.overrides) if path[: len(pair[0])] == pair[0])
        made = (pair for pair in self.overrides if path not in self.places and pair[0][: len(path)] == path != ())
        return next(above, None) or next(made, None)


class _Loader(yaml.SafeLoader):
    """SafeLoader with the scalars of YAML 1.2 and nothing else."""


_Loader.yaml_implicit_resolvers = {}
for _name, (_pattern, _first) in CORE_SCALARS.items():
    _Loader.add_implicit_resolver(CORE + _name, re.compile(rf"^(?:{_pattern})$"), _first)


class _Reader:
    """Plain data of one node tree; collects positions and faults on the way."""

    def __init__(self, *, below_top: bool = False) -> None:
        self.below_top = below_top
        self.places: dict[KeyPath, Position] = {}
        self.faults: list[tuple[Position, str]] = []
        self.open: list[yaml.Node] = []
        self.nodes = 0

    def of(self, node: yaml.Node, path: KeyPath) -> Any:
        """Data of a node; None where it has a fault."""
        self.nodes += 1
        if self.nodes > MOST_NODES:
            raise ConfigError(f"more than {MOST_NODES} values: too large for a config")
        if len(path) > MOST_LEVELS:
            return self._fault(node, path, f"nested more than {MOST_LEVELS} deep")
        if any(node is above for above in self.open):
            return self._fault(node, path, "an alias (*name) must not hold itself")
        self.open.append(node)
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, path)
            if isinstance(node, yaml.SequenceNode):
                return self._sequence(node, path)
            return self._scalar(node, path)
        finally:
            self.open.pop()

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> Any:
        if node.tag != CORE + "map":
            return self._fault(node, path, f"tag {_short(node.tag)} is not supported")
        out: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self._key(key_node, path)
            if key is None:
                continue
            below = (*path, key)
            if key in out:
                self._fault(key_node, below, f"duplicate key, first on line {self.places[below][0]}")
                continue
            self.places[below] = _place(key_node.start_mark)
            out[key] = self.of(value_node, below)
        return out

    def _key(self, node: yaml.Node, above: KeyPath) -> Any:
        if isinstance(node, yaml.ScalarNode) and node.tag == CORE + "str" and node.value == "<<" and not node.style:
            return self._fault(node, above, "merge keys (<<) are not supported: write the keys out")
        if (above or self.below_top) and isinstance(node, yaml.ScalarNode) and NUMBER_KEY.fullmatch(node.value):
            return str(node.value)
        sized = above[-1:] == ("forks",) or (not above and self.below_top)  # of the command line: the key is elsewhere
        if sized and isinstance(node, yaml.ScalarNode) and SHARE_KEY.fullmatch(node.value):
            return str(node.value)
        if not isinstance(node, yaml.ScalarNode) or node.tag != CORE + "str":
            got = repr(node.value) if isinstance(node, yaml.ScalarNode) else "a list or mapping"
            return self._fault(node, above, f"a key must be text, got {got[:LONGEST]}")
        return str(node.value) if self._is_text(node, above) else None

    def _sequence(self, node: yaml.SequenceNode, path: KeyPath) -> Any:
        if node.tag != CORE + "seq":
            return self._fault(node, path, f"tag {_short(node.tag)} is not supported")
        out = []
        for index, child in enumerate(node.value):
            self.places[(*path, index)] = _place(child.start_mark)
            out.append(self.of(child, (*path, index)))
        return out

    def _scalar(self, node: yaml.Node, path: KeyPath) -> Any:
        name, text = node.tag.removeprefix(CORE), str(node.value)
        if not self._is_text(node, path):
            return None
        if name == "str":
            return text
        if name not in CORE_SCALARS or node.tag == name:
            return self._fault(node, path, f"tag {_short(node.tag)} is not supported")
        if not re.fullmatch(CORE_SCALARS[name][0], text):
            return self._fault(node, path, f"{quote_value(text)} is no YAML {name}")
        if name == "int":
            return self._integer(node, path, text)
        if name == "float":
            return float(re.sub(r"\.(inf|nan)", r"\1", text.lower()))
        return text.lower() == "true" if name == "bool" else None

    def _is_text(self, node: yaml.Node, path: KeyPath) -> bool:
        if NO_TEXT.search(node.value):
            self._fault(node, path, f"must not hold null characters or lone surrogates, got {quote_value(node.value)}")
            return False
        return True

    def _integer(self, node: yaml.Node, path: KeyPath, text: str) -> Any:
        if len(text) > LONGEST:
            return self._fault(node, path, f"must fit in 64 bits, got an integer of {len(text)} digits")
        base = {"0o": 8, "0x": 16}.get(text[:2], 10)
        value = int(text[2:] if base != 10 else text, base)
        if -(2**63) <= value < 2**63:
            return value
        return self._fault(node, path, f"must fit in 64 bits, got {text}")

    def _fault(self, node: yaml.Node, path: KeyPath, text: str) -> Any:
        self.faults.append((_place(node.start_mark), f"{format_path(path)}: {text}" if path else text))


def read_yaml(path: Path) -> Document:
    """Read a file that holds one mapping.

    Raises:
        ConfigError: no such file, not a file, not UTF-8, not YAML, empty, duplicate keys, ...: every fault it can see.
    """
    text = read_text(path)
    if path.suffix == ".json":
        text = text.replace("\t", " ")  # JSON may be indented by tabs; its strings hold none
    return document_of(text, str(path))


def document_of(text: str, file: str) -> Document:
    """The mapping that a text holds; `file` is named in faults.

    Raises:
        ConfigError: as `read_yaml`, for what is not the file's own fault.
    """
    reader, data = _parse(text, f"{file}:")
    if reader.faults:
        raise ConfigError([f"{file}:{line}:{column}: {text}" for (line, column), text in sorted(reader.faults)])
    if data is None:
        raise ConfigError(f"{file}:1:1: the file is empty")
    if not isinstance(data, dict):
        raise ConfigError(f"{file}:1:1: must be a mapping of keys to values, got {quote_value(data)}")
    return Document(file, data, reader.places)


def read_override(text: str) -> tuple[str, Any]:
    """`key=value` of a command line; the value is YAML (`2e-5`, `[8, 16]`, `{min: 0.5, max: 0.9}`).

    Raises:
        ConfigError: no `=`, an empty key or value, a value that is not YAML.
    """
    key, equals, value = text.partition("=")
    if NO_TEXT.search(text):
        raise ConfigError(f"{format_override(text)}: must be UTF-8 text")
    if not equals or not key.strip() or not value.strip():
        raise ConfigError(f"{format_override(text)}: must be key=value (null for nothing)")
    reader, data = _parse(value, f"{format_override(text)}: value ", one_line=True)
    if reader.faults:
        raise ConfigError([f"{format_override(text)}: {fault}" for _, fault in reader.faults])
    return key.strip(), data


def _parse(text: str, prefix: str, *, one_line: bool = False) -> tuple[_Reader, Any]:
    """Data of a YAML text.

    Raises:
        ConfigError: not YAML, too large or nested too deeply; `<prefix>LINE:COLUMN: ...`, or `<prefix>...` of one line.
    """
    reader = _Reader(below_top=one_line)
    position = (1, 1)
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
        except ValueError:  # chr() of an escape such as \U00110000
            position, fault = _place(loader.get_mark()), "not YAML: this escape is not a character"
        else:
            return reader, None if node is None else reader.of(node, ())
    except yaml.MarkedYAMLError as error:
        position, fault = _syntax(error)
    except yaml.reader.ReaderError as error:
        position = line_column(text[: error.position])
        fault = f"character U+{error.character:04X} is not allowed in YAML"
    except RecursionError:
        fault = "nested too deeply"
    except ConfigError as error:
        fault = str(error)
    raise ConfigError(f"{prefix}{fault}" if one_line else f"{prefix}{position[0]}:{position[1]}: {fault}")


def _syntax(error: yaml.MarkedYAMLError) -> tuple[Position, str]:
    """Where and why, in PyYAML's words; a token that is not closed, such as a quote, is placed where it began."""
    began, context = error.context_mark, error.context or ""
    scanning = context.startswith("while scanning")
    where = f" that began on line {began.line + 1}" if began and context.startswith("while parsing") else ""
    reason = f"{context}{where}, {error.problem}" if context else error.problem
    return _place(began if began and scanning else error.problem_mark), printable(f"not YAML: {reason}")


def _place(mark: yaml.Mark | None) -> Position:
    return (1, 1) if mark is None else (mark.line + 1, mark.column + 1)


def _short(tag: str) -> str:
    return tag.replace(CORE, "!!")[:60]
