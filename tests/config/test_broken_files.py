"""Spaces and trial configs, damaged as people and programs damage them: read, or refused in words."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from faar_ray.config.trial_file import TrialFile, read_trial
from faar_ray.errors import ConfigError
from faar_ray.tune.propose.distributions import draw
from faar_ray.tune.space.initial_points import planned
from faar_ray.tune.space.parameter import DEFAULTS
from faar_ray.tune.space.space import SearchSpace, read_space

Read = Callable[..., SearchSpace | TrialFile]
TRIAL = """\
# a trial of faar_ray.train
method: faar
seed: 3
name: once
data: {name: scenes, tasks: [semseg, human_parts, normals], image_size: 64, train_images: 600}
backbone: {name: swin_micro, pretrained: true, checkpoint: null, drop_path: 0.1}
adapter: {kind: dora, scale: 4.0}
placement:
  layers: [qkv, proj]
  task_blocks: last
sinewich: {blur: matrix, blur_size: 7, sigma: 1.0}
ranks:
  kind: pdrs
  init_rank: {0: 2, 1: 2, 2: 3, 3: 16}
pdrs:
  rho_shared: 0.9   # of shared adapters
  rho_task: {0: 0.8, 1: 0.8, 2: 0.9, 3: 0.95}
decoder: {kind: ts_pd, primary: [semseg]}
optim: {epochs: 6, lr: 2e-3, decoder_lr: null, precision: fp32}
references: {semseg: 50.0, human_parts: 40.0, normals: 20.0}
resources: {workers: 1, max_concurrent: auto}
storage: {path: ./runs, keep_checkpoints: 2}
tracking: {uri: "sqlite:///mlflow.db", experiment: once}
"""
SPACES = {path.name: path.read_text() for path in sorted((Path(__file__).parents[2] / "search_spaces").glob("*.yaml"))}
FILES: dict[str, tuple[Read, str]] = {name: (read_space, text) for name, text in SPACES.items()}
FILES["trial.yaml"] = (read_trial, TRIAL)
JARGON = re.compile(
    r"Traceback|Input should|type=|pydantic|NoneType|<class|faar_ray\.|Error|\bdict\b|\btuple\b|None|True"
)
VALUES = [*"""
||~|null|true|yes|on|0|1|-1|2|1.5|0.5|2e-5|1e308|-1e308|5e-324|1e400|9223372036854775807|-9223372036854775808
9223372036854775808|.nan|.inf|-.inf|0x10|0o17|010|1_000|12:30:00|2024-01-01|x|'1'|''|' '|a.b|faar|[]|[1]|[[]]
[null]|[x, x]|{}|{a: 1}|{a: {b: {c: 1}}}|{0: 1, 1: 2, 2: 3, 3: 4}|{0: 1}|!!str 3|!!python/object:os.system x
!!binary aGk=|!!set {a}|&a [*a]|*nowhere|"\\0"|"\\ud800"|"\\U00110000"|'😀'|{min: 0.1, max: 0.5}|{values: [1, 2]}
[1, 2.5, x, {a: 1}, [2], null, true]|"[bold]x[/]"|'a: b'|'{x}'|'%s'|@|`|"a\\nb"
""".replace("\n", "|").split("|"), "9" * 400, "y" * 3000, "[" * 30 + "]" * 30]  # fmt: skip
KEYS = [*"""
<<|1|0|''|null|true|~|x|'a.b'|"\\n"|'a b'|[a]|{a: b}|? x|'é'|version|name|base|seed|method|prior|when|from|from_
model_config|values|__class__|1.5|!!int 3|"[red]"|"\\ud800"
""".strip().replace("\n", "|").split("|"), "key" * 200]  # fmt: skip


@dataclass(frozen=True)
class Spot:
    """A key, or an element of a list, with where its text begins and ends."""

    path: tuple[str | int, ...]
    start: int
    value: tuple[int, int]
    after: int
    """Where the next key begins, or what ends them."""
    between: str
    """What parts two keys here."""

    @property
    def written(self) -> bool:
        """Whether it is a key."""
        return isinstance(self.path[-1], str)


def spots(text: str) -> list[Spot]:
    """Every key and every element of a YAML text."""
    return list(_below(yaml.compose(text, yaml.SafeLoader), ()))


def _below(node: yaml.Node, path: tuple[str | int, ...]) -> Iterator[Spot]:
    if not isinstance(node, yaml.CollectionNode):
        return
    pairs = node.value if isinstance(node, yaml.MappingNode) else [(child, child) for child in node.value]
    begins = [key.start_mark for key, _ in pairs]
    for index, (key, value) in enumerate(pairs):
        below = (*path, key.value if isinstance(node, yaml.MappingNode) else index)
        end = value.end_mark.index
        after = begins[index + 1].index if index + 1 < len(pairs) else end
        between = (
            ", " if isinstance(node, yaml.CollectionNode) and node.flow_style else "\n" + " " * begins[index].column
        )
        yield Spot(below, begins[index].index, (value.start_mark.index, end), after, between)
        yield from _below(value, below)


def dropped(text: str, spot: Spot) -> str:
    return text[: spot.start] + text[spot.after :]


def doubled(text: str, spot: Spot) -> str:
    return text[: spot.start] + text[spot.start : spot.value[1]].rstrip() + spot.between + text[spot.start :]


def renamed(text: str, spot: Spot, name: str) -> str:
    return text[: spot.start] + name + text[spot.start + len(str(spot.path[-1])) :] if spot.written else text


def retyped(text: str, spot: Spot, value: str) -> str:
    start, end = spot.value
    kept = end - len(text[start:end]) + len(text[start:end].rstrip())  # a block ends where the next key begins
    return f"{text[:start]} {value}{text[kept:]}"


def faults_of(read: Read, path: Path, raw: str | bytes, overrides: Sequence[str] = ()) -> list[str]:
    """The faults without the file's name; none where what was read can be run."""
    path.write_bytes(raw.encode() if isinstance(raw, str) else raw)
    try:
        result = read(path, overrides)
    except ConfigError as error:
        faults = list(error.faults)
    else:
        can_be_run(result)
        return []
    assert faults
    assert len(set(faults)) == len(faults)
    lines = re.split("\r\n|[\r\n\x85\u2028\u2029]", path.read_bytes().decode("utf-8-sig", "replace"))
    for fault in faults:
        for_people(fault, path, lines, overrides)
    return [fault.removeprefix(f"{path}:") for fault in faults]


def for_people(fault: str, path: Path, lines: Sequence[str], overrides: Sequence[str]) -> None:
    """One line: a place that is there, then words that anyone understands."""
    assert fault.isprintable()
    assert len(fault) < 900
    if fault.startswith("command line: "):
        assert overrides
        output = fault
    else:
        place = re.fullmatch(re.escape(str(path)) + r":(\d+):(\d+): (.+)", fault)
        assert place, fault
        line, column = int(place[1]), int(place[2])
        assert 1 <= line <= len(lines), fault
        assert 1 <= column <= len(lines[line - 1]) + 2, fault
        output = place[3]
    assert not JARGON.search(re.sub(r"'[^']*'|got .*|__class__|model_config|^command line: [^=]*=", "", output)), fault


def can_be_run(config: SearchSpace | TrialFile) -> None:
    """What was accepted has trials."""
    if isinstance(config, TrialFile):
        assert config.config.dotted()
        return
    listed = planned(config.search, config.parameters, config.base, config.warm_start.points)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    asked = [] if config.search.listed else [draw(study.ask(), config.parameters, config.base) for _ in range(2)]
    for point in (*islice(listed, 4), *asked, *config.controls):
        assert config.trial_config(point)
    for point in asked:
        assert all(config.parameters[key].contains(value) for key, value in point.items())


@pytest.fixture(autouse=True)
def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def each_key() -> Iterator[Any]:
    """Every key that is written in some file, once."""
    seen: set[tuple[str | int, ...]] = set()
    for name, (_, text) in FILES.items():
        for spot in spots(text):
            inside = (name == "trial.yaml", *(part if isinstance(part, str) else 0 for part in spot.path))
            if inside not in seen:
                seen.add(inside)
                yield pytest.param(name, spot, id=f"{name}-{'.'.join(map(str, spot.path))}")


@pytest.mark.parametrize(("name", "spot"), each_key())
def test_every_key_that_is_dropped_doubled_misspelt_or_of_a_wrong_type_is_told_at_its_place(
    tmp_path: Path, name: str, spot: Spot
) -> None:
    read, text = FILES[name]
    path = tmp_path / name
    faults_of(read, path, dropped(text, spot))
    key = str(spot.path[-1])
    before = text[: spot.start].split("\n")
    local = f"{len(before)}:{len(before[-1]) + 1}: "
    if spot.written and not key.isdecimal():
        twice = faults_of(read, path, doubled(text, spot))
        assert any(f"{key}: duplicate key, first on line" in fault for fault in twice)
        wrong = faults_of(read, path, renamed(text, spot, "zz" + key))
        assert any(
            fault.startswith(local) and re.search(rf"zz{key}: (unknown key|must be)", fault) for fault in wrong
        ), wrong
    wrong = faults_of(read, path, retyped(text, spot, "{zz: [[1]]}"))
    lines = (local.partition(":")[0], str(text[: spot.value[0]].count("\n") + 1))
    assert any(fault.partition(":")[0] in lines and (key in fault or "zz" in fault) for fault in wrong), wrong


@st.composite
def damaged(draw: st.DrawFn) -> tuple[str, str]:
    """A file's name, and its text with one to three keys damaged, one after another."""
    name = draw(st.sampled_from(list(FILES)))
    text = FILES[name][1]
    for _ in range(draw(st.integers(1, 3))):
        try:
            spot = draw(st.sampled_from(spots(text)))
        except (yaml.YAMLError, RecursionError, ValueError):
            break
        key = str(spot.path[-1])
        text = draw(
            st.sampled_from([dropped(text, spot), doubled(text, spot)])
            | st.sampled_from(VALUES).map(functools.partial(retyped, text, spot))
            | st.sampled_from([key[:-1], key + "s", key[1:], key.upper(), "x." + key, key[:1] + key[:0:-1], *KEYS]).map(
                functools.partial(renamed, text, spot)
            )
        )
    return name, text


@st.composite
def nibbled(draw: st.DrawFn) -> tuple[str, bytes]:
    """A file's name, and its bytes with a few cut out, put in or turned into others."""
    name = draw(st.sampled_from(list(FILES)))
    raw = FILES[name][1].encode()
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(raw)))
        new = draw(
            st.binary(max_size=4) | st.sampled_from([b"\t", b"\n", b": ", b"{", b"]", b"&a", b"*a", b"- ", b"'"])
        )
        raw = raw[:start] + new + raw[start + draw(st.integers(0, 6)) :]
    return name, raw


def override_keys() -> list[str]:
    """Keys that exist, from their groups' too, and such that do not."""
    task_own = [".".join(map(str, spot.path)) for text in SPACES.values() for spot in spots(text)]
    searched = [
        f"parameters.{key}{end}" for key in DEFAULTS for end in ("", ".min", ".when", ".when.method", ".values.0")
    ]
    odd = [
        "",
        ".",
        "..",
        "a.",
        ".a",
        "base..x",
        "\n",
        "\ud83d",
        "[red]",
        "parameters.",
        "version.x",
        "objectives.2",
        "x" * 500,
    ]
    return list(dict.fromkeys([*DEFAULTS, *task_own, *searched, *SearchSpace.model_fields, *odd]))


OVERRIDES = st.tuples(
    st.sampled_from(override_keys()),
    st.sampled_from(["=", "=", "=", "==", " = ", ""]),
    st.sampled_from([*VALUES, "faar", "a=b"]),
).map("".join)
SOME_OVERRIDES = st.lists(OVERRIDES, min_size=1, max_size=3, unique=True)


def refused_or_run(folder: Path, name: str, raw: str | bytes, overrides: Sequence[str] = ()) -> None:
    faults_of(FILES[name][0], folder / name, raw, overrides)


def overridden(folder: Path, name: str, overrides: Sequence[str]) -> None:
    """Whatever is at fault is an override's, or a key's that an override no longer fits."""
    faults = faults_of(FILES[name][0], folder / name, FILES[name][1], overrides)
    assert not faults or any(fault.startswith("command line: ") for fault in faults) or "must" in faults[0], faults


QUICK: Any = {"derandomize": True, "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]}


@settings(max_examples=150, **QUICK)
@given(damaged())
def test_a_damaged_file_can_be_run_or_is_refused_in_words(tmp_path: Path, damage: tuple[str, str]) -> None:
    refused_or_run(tmp_path, *damage)


@settings(max_examples=120, **QUICK)
@given(nibbled())
def test_a_file_with_other_bytes_can_be_run_or_is_refused_in_words(tmp_path: Path, damage: tuple[str, bytes]) -> None:
    refused_or_run(tmp_path, *damage)


@settings(max_examples=80, **QUICK)
@given(st.sampled_from(list(FILES)), SOME_OVERRIDES)
def test_any_overrides_are_taken_or_refused_by_their_name(tmp_path: Path, name: str, overrides: list[str]) -> None:
    overridden(tmp_path, name, overrides)


@pytest.mark.slow
@pytest.mark.nightly
@settings(max_examples=400, **QUICK)
@given(damaged() | nibbled())
def test_many_damaged_files_can_be_run_or_are_refused(tmp_path: Path, damage: tuple[str, str | bytes]) -> None:
    refused_or_run(tmp_path, *damage)


@pytest.mark.slow
@pytest.mark.nightly
@settings(max_examples=1500, **QUICK)
@given(st.sampled_from(list(FILES)), SOME_OVERRIDES)
def test_many_overrides_are_taken_or_refused(tmp_path: Path, name: str, overrides: list[str]) -> None:
    overridden(tmp_path, name, overrides)
