"""Texts that are no search space, one by one, and what the commands say of them."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from faar_ray.errors import ConfigError
from faar_ray.tune.space.space import SearchSpace, read_space
from tests.commands import environment

SMALL = """\
version: 1
name: small
base:
  ranks: {init_rank: 16}
parameters:
  pdrs.rho_shared: {min: 0.3, max: 0.99, scale: log1m, prior: 0.95}
objectives:
  - {name: delta_m, goal: maximize}
"""
RANGE = "  pdrs.rho_shared: {min: 0.3, max: 0.99, scale: log1m, prior: 0.95}\n"
LISTED = SMALL.replace(RANGE, "  optim.lr: {values: [1e-3]}\n") + "scheduler: {type: none}\n"
TEN = "[" + ", ".join(str(number) for number in range(1, 11)) + "]"
WIDE = "".join(f"  optim.{key}: {{values: {TEN}}}\n" for key in ("lr", "clip", "batch_size", "decoder_lr", "epochs"))
MANY = f"  optim.lr: {{values: [{', '.join(f'0.{number}' for number in range(1000, 1300))}]}}\n"
BOMB = "a: &a [x, x]\n" + "".join(f"{new}: &{new} [*{old}, *{old}]\n" for old, new in pairwise("abcdefghijklmnopq"))


def small(old: str, new: str) -> str:
    assert old in SMALL
    return SMALL.replace(old, new)


MISSPELT = (
    small("ranks: {init_rank: 16}", "ranks: {init_rnk: 16}\n  pdrs: {beta: 2, init_rank: 8}") + "budget: {trial: 3}\n"
)


def faults_in(folder: Path, raw: str | bytes) -> list[str]:
    """The faults, `LINE:COLUMN: ...` each; none where it is a space."""
    path = folder / "a.yaml"
    path.write_bytes(raw.encode() if isinstance(raw, str) else raw)
    try:
        assert isinstance(read_space(path), SearchSpace)
    except ConfigError as error:
        return [fault.removeprefix(f"{path}:") for fault in error.faults]
    return []


@pytest.mark.parametrize(
    "raw",
    [
        b"\xef\xbb\xbf" + SMALL.encode(),
        SMALL.replace("\n", "\r\n"),
        SMALL.replace("\n", "\r"),
        f"---\n{SMALL}...\n",
        f"%YAML 1.2\n---\n{SMALL}",
        f"!!map\n{SMALL}",
        small("16", "0o20"),
        small("16", "0x10"),
        small("{init_rank: 16}", "&p {init_rank: 16}") + "controls: [{ranks: *p}]\n",
        SMALL + "budget: {trials: 9223372036854775807}\n",
        LISTED + "search: {sampler: grid, seeds: 8}\n",
    ],
)
def test_a_text_that_only_looks_unusual_is_read(tmp_path: Path, raw: str | bytes) -> None:
    assert faults_in(tmp_path, raw) == []


@pytest.mark.parametrize(
    ("raw", "first"),
    [
        ("", "1:1: the file is empty"),
        ("# words\n\n", "1:1: the file is empty"),
        ("null\n", "1:1: the file is empty"),
        ("- 1\n- a: null\n", "1:1: must be a mapping of keys to values, got [1, {a: null}]"),
        ("3", "1:1: must be a mapping of keys to values, got 3"),
        (f"{SMALL}---\n{SMALL}", "9:1: not YAML: expected a single document in the stream, but found another"),
        (SMALL.encode("utf-16"), "1:1: not UTF-8 text (byte 0xff)"),
        (small("small", "sm\xe4ll").encode("latin-1"), "2:9: not UTF-8 text (byte 0xe4)"),
        (small("small", "sm\0all"), "2:9: character U+0000 is not allowed in YAML"),
        (small("  ranks: {", "\tranks: {"), "4:1: not YAML: while scanning for the next token, found character '\\t'"),
        (SMALL + "name: again\n", "9:1: name: duplicate key, first on line 2"),
        (small("16}", "16, init_rank: 8}"), "4:26: ranks.init_rank: duplicate key, first on line 4"),
        (small("{init_rank: 16}", "&p {init_rank: 16}\n  optim: {<<: *p}"), "5:11: optim: merge keys (<<) are not"),
        (f"&top\n{SMALL}again: *top\n", "1:1: again: an alias (*name) must not hold itself"),
        (SMALL + "again: *top\n", "9:8: not YAML: found undefined alias 'top'"),
        (BOMB, "1:1: more than 20000 values"),
        ("a: " + "[" * 1000, "1:1: nested too deeply"),
        ("a: " + "[" * 50 + "]" * 50, "1:24: a.0.0.0.0."),
        (small("16", "!!python/object:os.system x"), "4:22: ranks.init_rank: tag !!python/object:os.system is not"),
        (small("16", "99999999999999999999"), "4:22: ranks.init_rank: must fit in 64 bits, got 99999999999999999999"),
        (small("16", "9" * 5000), "4:22: ranks.init_rank: must fit in 64 bits, got an integer of 5000 digits"),
        (small("0.95", ".nan"), "6:56: pdrs.rho_shared.prior: must be finite, got nan"),
        (small("0.95", "1e999"), "6:56: pdrs.rho_shared.prior: must be finite, got inf"),
        (small("16", "1_6"), "4:11: ranks.init_rank: must be an integer or a mapping of the stages"),
        (small("16", "12:30"), "4:11: ranks.init_rank: must be an integer or a mapping of the stages"),
        (small("small", "2024-01-01 10:00"), "2:1: name: must be a folder's name"),
        (small("small", '"\\ud800"'), r"2:7: name: must not hold null characters or lone surrogates, got '\ud800'"),
        (SMALL + 'storage: {path: "a\\0b"}\n', "9:17: storage.path: must not hold null characters or lone surrogates"),
        (small("small", '"\\U00110000"'), "2:10: not YAML: this escape is not a character"),
        (SMALL + '"\\ud800": 1\n', r"9:1: must not hold null characters or lone surrogates, got '\ud800'"),
        (SMALL + '"a\\nb": 1\n', r"9:1: a\nb: unknown key"),
        (SMALL + "'': 1\n", "9:1: '': unknown key"),
        (SMALL + f"? {'k' * 9000}\n: 1\n", f"9:3: {'k' * 57}...: unknown key"),
        (small("pdrs.rho_shared", "''"), "6:3: '': unknown key"),
        (small("0.95}", "0.95"), "7:11: not YAML: while parsing a flow mapping that began on line 6"),
        (small("small", "a: b"), "2:8: not YAML: mapping values are not allowed here"),
        (small("small", "'small"), "2:7: not YAML: while scanning a quoted scalar, found unexpected end of stream"),
        (small("small", "@small"), "2:7: not YAML: while scanning for the next token, found character '@'"),
        (small("  ranks:", "ranks\n  ranks:"), "4:1: not YAML: while scanning a simple key, could not find"),
        ("pdrs\n" + SMALL, "2:8: not YAML: mapping values are not allowed here"),
        (LISTED + "search: {sampler: grid, seeds: 90000000}\nbudget: {trials: 90000000}\n", "10:10: search.sampler"),
        (SMALL.replace(RANGE, WIDE) + "search: {sampler: grid}\nscheduler: {type: none}\n", "13:10: search.sampler"),
        (SMALL.replace(RANGE, MANY), "6:14: optim.lr.values: must be a list of 1 to 256"),
    ],
)  # fmt: skip
@pytest.mark.timeout(60)
def test_a_text_that_is_no_space_is_told_where_and_why(tmp_path: Path, raw: str | bytes, first: str) -> None:
    faults = faults_in(tmp_path, raw)
    assert faults
    assert faults[-1 if first.startswith("9:1: ") and "unknown" in first else 0].startswith(first), faults[:3]


def command(module: str, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A real command in an empty folder; stdout ends with what of the heavy packages it imported."""
    heavy = "('ray', 'mlflow', 'optuna')" if module.endswith("tune") else "('ray', 'mlflow')"
    script = (
        f"import sys\nfrom {module}.__main__ import main\ncode = main(sys.argv[1:])\n"
        f"print([name for name in {heavy} if name in sys.modules])\nsys.exit(code)"
    )
    return subprocess.run(
        [sys.executable, "-c", script, *words],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.mark.parametrize(
    ("raw", "overrides", "faults"),
    [
        (MISSPELT, ["fo=1", "seed=x"], [
            "space.yaml:4:11: ranks.init_rnk: unknown key (did you mean 'init_rank'?)",
            "space.yaml:5:10: pdrs.beta: must satisfy 0 <= beta < 1, got 2",
            "space.yaml:5:19: pdrs.init_rank: unknown key: it is called ranks.init_rank now",
            "space.yaml:10:10: budget.trial: unknown key (did you mean 'trials'?)",
            "command line: fo=1: unknown key",
            "command line: seed=x: must be an integer, got 'x'",
        ]),
        ("", [], ["space.yaml:1:1: the file is empty"]),
        (SMALL.encode("utf-16"), [], ["space.yaml:1:1: not UTF-8 text (byte 0xff)"]),
        (None, [], ["space.yaml: no such file"]),
        (SMALL, ["a", "=1"], [
            "command line: a: must be key=value (null for nothing)",
            "command line: =1: must be key=value (null for nothing)",
        ]),
    ],
)  # fmt: skip
def test_the_search_command_tells_every_fault_and_leaves_no_trace(
    tmp_path: Path, raw: str | bytes | None, overrides: list[str], faults: list[str]
) -> None:
    if raw is not None:
        (tmp_path / "space.yaml").write_bytes(raw.encode() if isinstance(raw, str) else raw)
    before = list(tmp_path.iterdir())
    ended = command("faar_ray.tune", tmp_path, "space.yaml", *overrides)
    assert ended.returncode == 2
    assert ended.stderr.splitlines() == faults
    assert ended.stdout == "[]\n"
    assert list(tmp_path.iterdir()) == before


def test_the_training_command_tells_every_fault_and_leaves_no_trace(tmp_path: Path) -> None:
    (tmp_path / "trial.yaml").write_text("method: faarr\noptim: {epochs: 0}\n")
    ended = command("faar_ray.train", tmp_path, "trial.yaml", "pdrs.bata=1")
    assert ended.returncode == 2
    first, second, third = ended.stderr.splitlines()
    assert first.startswith("trial.yaml:1:1: method: must be one of faar, ")
    assert first.endswith("got 'faarr' (did you mean 'faar'?)")
    assert second == "trial.yaml:2:9: optim.epochs: must satisfy epochs >= 1, got 0"
    assert third == "command line: pdrs.bata=1: unknown key (did you mean 'beta'?)"
    assert [entry.name for entry in tmp_path.iterdir()] == ["trial.yaml"]
