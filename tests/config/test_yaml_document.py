from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faar_ray.config.quoting import quote_value
from faar_ray.config.text_file import LARGEST_FILE
from faar_ray.config.yaml_document import Document, read_override, read_yaml
from faar_ray.errors import ConfigError


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "a.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def faults(folder: Path, text: str | bytes) -> list[str]:
    """What reading the text says, the folder's name taken off."""
    with pytest.raises(ConfigError) as error:
        read_yaml(written(folder, text))
    return [fault.removeprefix(f"{folder}/") for fault in error.value.faults]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2e-5", 2e-5),
        ("5.0e-4", 5e-4),
        ("1E3", 1000.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("12", 12),
        ("+3", 3),
        ("-7", -7),
        ("010", 10),
        ("0x1F", 31),
        ("0o17", 15),
        ("-.inf", float("-inf")),
        ("true", True),
        ("FALSE", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("on", "on"),
        ("off", "off"),
        ("yes", "yes"),
        ("no", "no"),
        ("y", "y"),
        ("1:30", "1:30"),
        ("2024-01-02", "2024-01-02"),
        ("1_000", "1_000"),
        ("10m", "10m"),
        ("'3'", "3"),
        ("!!str 3", "3"),
        ("!!float 3", 3.0),
    ],
)
def test_scalars_follow_yaml_1_2(tmp_path: Path, text: str, value: object) -> None:
    got = read_yaml(written(tmp_path, f"key: {text}\n")).data["key"]
    assert got == value
    assert type(got) is type(value)


def test_every_key_and_element_knows_its_line_and_column(tmp_path: Path) -> None:
    document = read_yaml(written(tmp_path, "a: 1\nb:\n  c: {d: 2}\n  e:\n    - 5\n    - f: 6\n"))
    assert document.data == {"a": 1, "b": {"c": {"d": 2}, "e": [5, {"f": 6}]}}
    assert document.place(("b", "c")) == (3, 3)
    assert document.place(("b", "c", "d")) == (3, 7)
    assert document.place(("b", "e", 0)) == (5, 7)
    assert document.place(("b", "e", 1, "f")) == (6, 7)


def test_a_key_that_is_not_there_stands_where_its_group_stands(tmp_path: Path) -> None:
    document = read_yaml(written(tmp_path, "a: 1\nb:\n  c: 2\n"))
    assert document.place(("b", "x", "y")) == (2, 1)
    assert document.place(("x",)) == (1, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a.yaml:1:1: the file is empty"),
        ("# only words\n", "a.yaml:1:1: the file is empty"),
        ("- 1\n- 2\n", "a.yaml:1:1: must be a mapping of keys to values, got [1, 2]"),
        ("word", "a.yaml:1:1: must be a mapping of keys to values, got 'word'"),
        ("a: 1\nb: 2\na: 3\n", "a.yaml:3:1: a: duplicate key, first on line 1"),
        ("a: {b: 1, b: 2}\n", "a.yaml:1:11: a.b: duplicate key, first on line 1"),
        ("a: &x {b: 1}\nc:\n  <<: *x\n", "a.yaml:3:3: c: merge keys (<<) are not supported: write the keys out"),
        ("a: &x [1, *x]\n", "a.yaml:1:4: a.1: an alias (*name) must not hold itself"),
        ("1: a\n", "a.yaml:1:1: a key must be text, got '1'"),
        ("a:\n  1.5: b\n", "a.yaml:2:3: a: a key must be text, got '1.5'"),
        ("? [a]\n: b\n", "a.yaml:1:3: a key must be text, got a list or mapping"),
        ("a: 99999999999999999999\n", "a.yaml:1:4: a: must fit in 64 bits, got 99999999999999999999"),
        ("a: " + "9" * 5000, "a.yaml:1:4: a: must fit in 64 bits, got an integer of 5000 digits"),
        ("a: !!int x\n", "a.yaml:1:4: a: 'x' is no YAML int"),
        ("a: !!python/object:os.system x\n", "a.yaml:1:4: a: tag !!python/object:os.system is not supported"),
        ("a: !mine {b: 1}\n", "a.yaml:1:4: a: tag !mine is not supported"),
        ("a: !!set {b, c}\n", "a.yaml:1:4: a: tag !!set is not supported"),
        (
            "a: 1\n\tb: 2\n",
            "a.yaml:2:1: not YAML: while scanning for the next token, "
            "found character '\\t' that cannot start any token",
        ),
        (b"a: 1\nb: \xff\xfe\n", "a.yaml:2:4: not UTF-8 text (byte 0xff)"),
        (b"a: 1\nb: \x00\n", "a.yaml:2:4: character U+0000 is not allowed in YAML"),
    ],
)
def test_each_bad_text_is_one_message_with_its_place(tmp_path: Path, text: str | bytes, message: str) -> None:
    assert faults(tmp_path, text) == [message]


@pytest.mark.parametrize(
    "text",
    ["a: [1, 2", "a: {b: 1", "a: 'b", "a: b: c", "a: *nowhere", "--- a\n--- b", "%YAML 9\n", "a: !<x", "@: 1", "a"],
)
def test_what_is_not_a_mapping_in_yaml_is_refused_with_a_place(tmp_path: Path, text: str) -> None:
    (fault,) = faults(tmp_path, text)
    assert fault.startswith("a.yaml:")
    assert "Traceback" not in fault


def test_all_faults_of_a_file_are_told_at_once_in_its_order(tmp_path: Path) -> None:
    message = faults(tmp_path, "a: 1\na: 2\nb: !x 1\n3: 4\n")
    assert [fault.split(":")[1] for fault in message] == ["2", "3", "4"]


def test_deep_nesting_and_alias_bombs_end_in_a_message(tmp_path: Path) -> None:
    assert "nested too deeply" in faults(tmp_path, "a: " + "[" * 20_000)[0]
    bomb = "a0: &a0 [1, 1]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9))
    assert "too large" in faults(tmp_path, bomb)[0]


def test_an_alias_of_a_value_is_that_value(tmp_path: Path) -> None:
    assert read_yaml(written(tmp_path, "a: &x [1, 2]\nb: *x\n")).data == {"a": [1, 2], "b": [1, 2]}


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    assert read_yaml(written(tmp_path, b"\xef\xbb\xbfa: 1\n")).data == {"a": 1}


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "rho.yaml").write_text("a: 1\n")
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "big.yaml").write_bytes(b"#" * (LARGEST_FILE + 1))
    expected = {
        "gone.yaml": "no such file",
        "rho.yml": f"no such file (did you mean '{tmp_path / 'rho.yaml'}'?)",
        "pipe.yaml": "is not a regular file",
        "big.yaml": f"larger than {LARGEST_FILE} bytes, which no config is",
        ".": "is a folder, not a file",
        "rho.yaml/x": "no such file",
        "n\0ul": "no such file",
        "x" * 5000: "cannot be read",
    }
    for name, message in expected.items():
        with pytest.raises(ConfigError) as error:
            read_yaml(tmp_path / name)
        assert message in str(error.value)


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("pdrs.beta=2e-5", ("pdrs.beta", 2e-5)),
        ("budget.time=10m", ("budget.time", "10m")),
        ("a=b=c", ("a", "b=c")),
        ("a = [8, 16]", ("a", [8, 16])),
        ("a={min: 0.5, max: .9}", ("a", {"min": 0.5, "max": 0.9})),
        ("a=null", ("a", None)),
    ],
)
def test_an_override_is_a_key_and_a_yaml_value(text: str, pair: tuple[str, object]) -> None:
    assert read_override(text) == pair


@pytest.mark.parametrize("text", ["", "=", "a", "a=", "=1", " =1", "a=[", "a={b", "a=!x 1", "a={b: 1, b: 2}", "a=*x"])
def test_a_bad_override_is_named_as_one_of_the_command_line(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^command line: "):
        read_override(text)


@given(st.binary(max_size=200))
def test_any_bytes_give_data_or_a_config_error(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    path = written(tmp_path_factory.getbasetemp(), raw)
    try:
        assert isinstance(read_yaml(path), Document)
    except ConfigError as error:
        assert error.faults


@given(st.text(alphabet="ab01:-?[]{},&*!|>'\"%@`#\t\n .~<=", max_size=60))
def test_any_yaml_like_text_gives_data_or_a_config_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = written(tmp_path_factory.getbasetemp(), text)
    try:
        read_yaml(path)
    except ConfigError as error:
        assert error.faults


def test_values_are_shown_in_yaml_words_and_shortened() -> None:
    assert [quote_value(value) for value in (None, True, "a", 1.5)] == ["null", "true", "'a'", "1.5"]
    assert len(quote_value("x" * 500)) == 60
