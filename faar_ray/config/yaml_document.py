"""A YAML file as plain data that remembers where every key stood.

Values follow YAML 1.2's core schema (`2e-5` is a number; `on`, `yes` and dates are text). Whatever a file holds, the
outcome is data or a `ConfigError`; PyYAML's own exceptions never leave this file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from faar_ray.errors import ConfigError

KeyPath = tuple[str | int, ...]
Position = tuple[int, int]
"""Line and column, both from 1."""

LARGEST_FILE = 1_000_000
MOST_NODES = 20_000
MOST_LEVELS = 20
LONGEST = 60
"""Characters of a value, or of a part of a key, that a message quotes."""
HIDDEN = ("base", "parameters")
"""Groups whose keys are a trial's own: their name is left out of messages."""
CORE = "tag:yaml.org,2002:"
UNFIT = re.compile(r"[\x00\ud800-\udfff]")
"""The null character, and halves of characters beyond the first 65,536: escapes can write them, no path holds them."""
LINE_BREAK = re.compile("\r\n|[\r\n\x85\u2028\u2029]")
"""Where lines end in YAML."""
STAGE_KEY = re.compile(r"[0-9]{1,3}")
"""Keys below the top that are numbers, taken as text: the stages of `ranks.init_rank: {0: 2, 1: 2, 2: 3, 3: 16}`."""
NO_CHARACTER = re.compile(r"\\U(?!0010|000)[0-9a-fA-F]{8}")
SYNTAX = [
    (r"tab", "a tab cannot indent or separate here, use spaces"),
    (r"found undefined alias (.*)", r"\1 has no &name before it"),
    (
        r"mapping values are not allowed",
        "a colon that makes no key here: its text needs quotes, or the line above lacks a colon",
    ),
    (r"could not find expected ':'", "a key without a colon and a space after it"),
    (r"expected ',' or '([]}])'", r"a comma or the closing \1 is missing before this"),
    (r"expected <block end>", "this does not fit what stands above it: mend the indentation, or what is left open"),
    (r"expected a single document", "a file holds one document: take out what follows a second ---"),
    (r"unexpected end of stream", "a quote is not closed"),
    (r"character '(.)' that cannot start", r"text that begins with \1 needs quotes"),
    (r"incompatible YAML document", "%YAML must be 1.2"),
]
"""What PyYAML's parser says (a pattern), and the same for people."""
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


class _Plain:
    """Plain data of one node tree; faults and places are gathered on the way."""

    def __init__(self, *, below_top: bool = False) -> None:
        self.below_top = below_top
        self.places: dict[KeyPath, Position] = {}
        self.faults: list[tuple[Position, str]] = []
        self.open: list[yaml.Node] = []
        self.nodes = 0

    def of(self, node: yaml.Node, path: KeyPath) -> Any:
        """Data of a node; None where a fault was noted."""
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
        if (above or self.below_top) and isinstance(node, yaml.ScalarNode) and STAGE_KEY.fullmatch(node.value):
            return str(node.value)
        if not isinstance(node, yaml.ScalarNode) or node.tag != CORE + "str":
            got = repr(node.value) if isinstance(node, yaml.ScalarNode) else "a list or mapping"
            return self._fault(node, above, f"a key must be text, got {got[:LONGEST]}")
        if UNFIT.search(node.value):
            return self._fault(
                node, above, f"a key must be without null or half characters, got {quote_value(node.value)}"
            )
        return str(node.value)

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
        if UNFIT.search(text):
            return self._fault(node, path, f"must be without null or half characters, got {quote_value(text)}")
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
    return document_of(read_text(path), str(path))


def document_of(text: str, file: str) -> Document:
    """The mapping that a text holds; `file` is named in faults.

    Raises:
        ConfigError: as `read_yaml`, for what is not the file's own fault.
    """
    plain, data = _parse(text, f"{file}:")
    if plain.faults:
        raise ConfigError([f"{file}:{line}:{column}: {text}" for (line, column), text in sorted(plain.faults)])
    if data is None:
        raise ConfigError(f"{file}:1:1: the file is empty")
    if not isinstance(data, dict):
        raise ConfigError(f"{file}:1:1: must be a mapping of keys to values, got {quote_value(data)}")
    return Document(file, data, plain.places)


def read_override(text: str) -> tuple[str, Any]:
    """`key=value` of a command line; the value is YAML (`2e-5`, `[8, 16]`, `{min: 0.5, max: 0.9}`).

    Raises:
        ConfigError: no `=`, an empty key or value, a value that is not YAML.
    """
    key, equals, value = text.partition("=")
    if UNFIT.search(text):
        raise ConfigError(f"{format_override(text)}: must be UTF-8 text")
    if not equals or not key.strip() or not value.strip():
        raise ConfigError(f"{format_override(text)}: must be key=value (null for nothing)")
    plain, data = _parse(value, f"{format_override(text)}: value ", one_line=True)
    if plain.faults:
        raise ConfigError([f"{format_override(text)}: {fault}" for _, fault in plain.faults])
    return key.strip(), data


def format_override(override: str) -> str:
    """An override as its faults begin with it, on one line."""
    return f"command line: {_shortened(_printable(override), 3 * LONGEST)}"


def format_path(path: KeyPath) -> str:
    """A key as a message names it."""
    shown_path = path[1:] if len(path) > 1 and path[0] in HIDDEN else path
    return ".".join(_shortened(_printable(str(part)), LONGEST) or "''" for part in shown_path)


def quote_value(value: Any) -> str:
    """A value as a message quotes it: YAML's words, text in quotes, shortened."""
    return _shortened(_worded(value), LONGEST)


def _worded(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_printable(str(key))}: {_worded(below)}" for key, below in value.items()) + "}"
    return f"[{', '.join(map(_worded, value))}]" if isinstance(value, list | tuple) else repr(value)


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def read_text(path: Path) -> str:
    """The text of a config file.

    Raises:
        ConfigError: no such file, not a file, too large, not UTF-8.
    """
    try:
        if path.is_dir():
            raise ConfigError(f"{path}: is a folder, not a file")
        if not path.exists():
            raise ConfigError(f"{path}: no such file{_neighbour(path)}")
        if not path.is_file():
            raise ConfigError(f"{path}: is not a regular file")
        if path.stat().st_size > LARGEST_FILE:
            raise ConfigError(f"{path}: larger than {LARGEST_FILE} bytes, which no config is")
        raw = path.read_bytes()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, column = _line_column(raw[: error.start].decode("utf-8", "replace"))
        raise ConfigError(f"{path}:{line}:{column}: not UTF-8 text (byte 0x{raw[error.start]:02x})") from None


def _neighbour(path: Path) -> str:
    twin = next((path.with_suffix(end) for end in (".yaml", ".yml") if path.with_suffix(end).is_file()), None)
    return f" (did you mean '{twin}'?)" if twin and twin != path else ""


def _parse(text: str, prefix: str, *, one_line: bool = False) -> tuple[_Plain, Any]:
    """Data of a YAML text; a syntax fault is raised as `<prefix>LINE:COLUMN: ...`, or `<prefix>...` of one line."""
    plain = _Plain(below_top=one_line)
    try:
        node = yaml.compose(text, _Loader)
        return plain, None if node is None else plain.of(node, ())
    except yaml.MarkedYAMLError as error:
        scanned = error.context_mark if (error.context or "").startswith("while scanning") else None
        mark = scanned or error.problem_mark or error.context_mark
        line, column = _place(mark) if mark else (1, 1)
        fault = _syntax(error, text)
    except yaml.reader.ReaderError as error:
        line, column = _line_column(text[: error.position])
        fault = f"character {_code(error.character)} is not allowed in YAML"
    except RecursionError:
        line, column, fault = 1, 1, "nested too deeply"
    except ValueError:
        found = NO_CHARACTER.search(text)
        line, column = _line_column(text[: found.start()]) if found else (1, 1)
        fault = f"not YAML: {found[0] if found else 'an escape'} is no character"
    except ConfigError as error:
        line, column, fault = 1, 1, str(error)
    raise ConfigError(f"{prefix}{fault}" if one_line else f"{prefix}{line}:{column}: {fault}")


def _syntax(error: yaml.MarkedYAMLError, text: str) -> str:
    mark = error.problem_mark
    tab = mark is not None and text[mark.index : mark.index + 1] == "\t"
    said = "tab" if tab else ", ".join(part for part in (error.context, error.problem) if part)
    for pattern, words in SYNTAX:
        if found := re.search(pattern, said):
            return f"not YAML: {found.expand(words)}"
    return f"not YAML: {_printable(said)}"


def _place(mark: yaml.Mark | None) -> Position:
    return (1, 1) if mark is None else (mark.line + 1, mark.column + 1)


def _code(character: int | str | bytes) -> str:
    """A character that may not be printable, by its number."""
    return f"U+{character if isinstance(character, int) else ord(character):04X}"


def _line_column(before: str) -> Position:
    lines = LINE_BREAK.split(before)
    return len(lines), len(lines[-1]) + 1


def _short(tag: str) -> str:
    return tag.replace(CORE, "!!")[:60]
