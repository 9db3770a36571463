"""Conditional parameters: which a sample has, in lists and points too, and what is wrong with conditions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from faar_ray.errors import ConfigError
from faar_ray.report.results import read_results, write_results
from faar_ray.report.words.answer import build_answer
from faar_ray.tune.run.run_folder import as_yaml
from faar_ray.tune.show.dry_run import samples
from faar_ray.tune.space.conditions import in_order, split_active
from faar_ray.tune.space.initial_points import grid, planned
from faar_ray.tune.space.parameter import Parameter
from faar_ray.tune.space.space import SearchSpace, read_space

Space = Callable[..., SearchSpace]
Drive = Callable[..., Any]

CHOICES: dict[str, Any] = {
    "method": {"values": ["faar", "dora"]},
    "decoder.filter": {"values": ["grid", "radial"], "when": {"method": "faar"}},
    "optim.batch_size": {"values": [8, 16]},
    "decoder.expansion": {"values": [1, 2], "when": {"decoder.filter": "radial"}},
}


def of_grid(conditional: Space, parameters: dict[str, Any] = CHOICES, **over: Any) -> SearchSpace:
    listed = {"search": {"sampler": "grid"}, "scheduler": {"type": "none"}, "budget": {"trials": 8}}
    return conditional(parameters, **{**listed, **over})


def written(conditional: Space) -> dict[str, Any]:
    """The parameters of the conditional space as they are written."""
    parameters: dict[str, Any] = conditional().model_dump(mode="json", exclude_unset=True)["parameters"]
    return parameters


# what a sample has


def test_a_parameter_is_decided_after_what_its_conditions_depend_on(conditional: Space) -> None:
    order = in_order(conditional().parameters)
    assert order == [
        "method", "decoder.cutoff", "decoder.filter", "decoder.expansion", "pdrs.rho_shared", "optim.lr",
    ]  # fmt: skip
    plain = {name: Parameter(min=0, max=1) for name in "dacb"}
    assert in_order(plain) == ["d", "a", "c", "b"]


def test_conditions_are_judged_on_the_preset_of_the_sampled_method(conditional: Space) -> None:
    parameters, base = conditional().parameters, {"decoder": {"kind": "hrnet"}}
    whole: dict[str, Any] = {
        "decoder.cutoff": 0.5,
        "method": "dora",
        "decoder.filter": "radial",
        "decoder.expansion": 2,
    }
    active, inactive = split_active(parameters, base, whole)
    assert active == {"method": "dora"}
    assert inactive["decoder.filter"] == "method must be 'faar', got 'dora'"
    assert inactive["decoder.expansion"] == "decoder.filter must be 'radial', got 'grid'"  # nested
    assert split_active(parameters, base, {**whole, "method": "faar"}) == ({**whole, "method": "faar"}, {})
    assert split_active(parameters, base, {"decoder.cutoff": 0.5})[0] == {}  # the base's kind


def test_true_is_not_one(conditional: Space) -> None:
    parameters = {"optim.lr": Parameter(min=0.1, max=0.2, when={"decoder.expansion": True})}
    assert split_active(parameters, {"decoder": {"expansion": 1}}, {"optim.lr": 0.1})[0] == {}


def test_a_space_with_conditions_survives_being_written_and_read(conditional: Space, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(as_yaml(conditional()))
    assert read_space(tmp_path / "a.yaml") == conditional()


# faults

TEXT = """\
version: 1
name: small
base: {optim: {epochs: 6}}
parameters:
  method: {values: [faar, dora, lora]}
  optim.batch_size: {values: [8, 16], when: {method: faar}}
  KEY
objectives: [{name: delta_m, goal: maximize}]
"""


def faults(folder: Path, line: str, *overrides: str) -> list[str]:
    path = folder / "a.yaml"
    path.write_text(TEXT.replace("KEY", line))
    with pytest.raises(ConfigError) as error:
        read_space(path, overrides)
    return [fault.removeprefix(f"{folder}/") for fault in error.value.faults]


@pytest.mark.parametrize(
    ("when", "rule"),
    [
        ("{methid: faar}", ".methid: unknown key (did you mean 'method'?)"),
        ("{decoder: ts_pd}", ".decoder: unknown key"),
        ("{seed: 1}", ".seed: the seed is no part of a configuration"),
        ("{optim.lr: 0.5}", ".optim.lr: must not name the parameter itself"),
        ("{method: fara}", ".method: must lie within ['faar', 'dora', 'lora'], got 'fara' (did you mean 'faar'?)"),
        ("{method: decoder_only}", ".method: must lie within ['faar', 'dora', 'lora'], got 'decoder_only'"),
        ("{optim.batch_size: 32}", ".optim.batch_size: must lie within [8, 16], got 32"),
        ("{decoder.kind: tspd}", ".decoder.kind: must be one of hrnet, ts_pd, got 'tspd' (did you mean 'ts_pd'?)"),
        ("{decoder.expansion: 0}", ".decoder.expansion: must satisfy expansion >= 1, got 0"),
        ("{decoder.xt_cons: 1}", ".decoder.xt_cons: must be true or false, got 1"),
        ("{data.tasks: [semseg]}", ".data.tasks: is a list, and a condition names single values"),
        ("{optim.epochs: 7}", ".optim.epochs: is never 7 in this search, but 6"),
        ("{adapter.kind: none}", ".adapter.kind: is never 'none' in this search, but 'dora' or 'lora'"),
        ("{method: faar, decoder.kind: hrnet}", ": can never hold together in this search"),
        ("{method: dora, optim.batch_size: 8}", ": can never hold together in this search"),  # the base has 16
        ("{}", ": must be conditions such as {method: faar} or null, got {}"),
        ("3", ": must be conditions such as {method: faar} or null, got 3"),
        ("{method: []}", ".method: must be true or false or a number or text or a list that is not empty, got []"),
        ("{method: null}", ".method: must lie within ['faar', 'dora', 'lora'], got null"),
        ("{method: {a: 1}}", ".method: must be true or false or a number or text or a list that is not empty"),
    ],
)
def test_a_condition_that_cannot_be_meant_is_refused_where_it_stands(tmp_path: Path, when: str, rule: str) -> None:
    (message,) = faults(tmp_path, f"optim.lr:\n    min: 0.1\n    max: 1\n    when: {when}")
    column = 5 if rule.startswith(": ") else when.rindex(rule[1 : rule.index(":")]) + 11
    assert message.startswith(f"a.yaml:10:{column}: optim.lr.when{rule}")


def test_a_condition_that_one_value_of_a_list_can_meet_stands(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(TEXT.replace("KEY", "optim.lr: {min: 0.1, max: 1, when: {optim.epochs: [6, 7]}}"))
    assert read_space(path).parameters["optim.lr"].conditions == {"optim.epochs": (6, 7)}


def test_an_inactive_parameter_s_own_value_may_be_named(tmp_path: Path) -> None:
    """The batch size is searched with faar alone; with the others it is the base's."""
    path = tmp_path / "a.yaml"
    text = TEXT.replace("[8, 16]", "[8, 12]").replace(
        "KEY", "optim.lr: {min: 0.1, max: 1, when: {optim.batch_size: 16}}"
    )
    path.write_text(text)
    assert split_active(read_space(path).parameters, {}, {"method": "dora", "optim.lr": 0.5})[1] == {}


def test_circles_are_refused_once_each(tmp_path: Path) -> None:
    lines = [
        "optim.lr: {min: 0.1, max: 1, when: {optim.clip: 2}}",
        "optim.clip: {values: [2, 3], when: {optim.weight_decay: 0}}",
        "optim.weight_decay: {values: [0, 1], when: {optim.lr: 0.5}}",
        "decoder.width: {values: [8], when: {optim.lr: 0.5}}",
    ]
    way = "optim.lr needs optim.clip needs optim.weight_decay needs optim.lr"
    assert faults(tmp_path, "\n  ".join(lines)) == [
        f"a.yaml:7:39: optim.lr.when.optim.clip: must not depend on itself: {way}"
    ]


@pytest.mark.parametrize(
    "line", ["optim.clip: {values: [1]}", "decoder.kind: {values: [ts_pd], when: {optim.clip: 5}}"]
)
def test_a_method_must_not_depend_on_what_its_own_preset_may_decide(tmp_path: Path, line: str) -> None:
    over = "parameters.method.when={decoder.kind: ts_pd}"
    text = "must not depend on itself: its own preset may decide what is named here"
    assert faults(tmp_path, line, over) == [f"command line: {over}: {text}"]


def test_values_are_checked_under_the_conditions(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(
        TEXT.replace("method: {values: [faar, dora, lora]}", "optim.epochs: {values: [6, 10]}").replace(
            "optim.batch_size: {values: [8, 16], when: {method: faar}}",
            "pdrs.start_epoch: {min: 6, max: 9, when: {optim.epochs: 10}}",
        ).replace("KEY", "pdrs.beta: {min: 0, max: 0.5, when: {pdrs.start_epoch: [7, 8]}}")
    )  # fmt: skip
    space = read_space(path)
    assert space.parameters["pdrs.start_epoch"].bounds == (6, 9)
    assert space.parameters["pdrs.beta"].bounds == (0.0, 0.5)
    message = faults(tmp_path, "pdrs.start_epoch: {min: 2, max: 8, when: {method: [faar, dora]}}")
    assert message == [
        "a.yaml:7:3: pdrs.start_epoch: must be below optim.epochs - pdrs.free_epochs = 6, or nothing ever shrinks, got "
        "8, where method is 'faar'"
    ]


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    lines = [
        "optim.lr: {min: 0.1, max: 1, when: {method: fara, optim.epoch: 6}}",
        "optim.clip: {min: 1}",
        "optim.weight_decay: {min: 0, max: 1, when: {optim.clip: 1, decoder.kind: hrnt}}",
    ]
    assert [fault.partition(": ")[2][:40] for fault in faults(tmp_path, "\n  ".join(lines))] == [
        "optim.lr.when.method: must lie within ['",
        "optim.lr.when.optim.epoch: unknown key (",
        "optim.clip: needs min and max, or values",
        "optim.weight_decay.when.decoder.kind: mu",
    ]


def test_overrides_reach_conditions(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(TEXT.replace("KEY", "optim.lr: {min: 0.1, max: 1, when: {method: [faar, dora]}}"))
    key = "parameters.optim.lr.when"
    over = [f"{key}.method.1=lora", f"{key}.decoder.kind=[ts_pd, hrnet]", "parameters.optim.batch_size.when=null"]
    space = read_space(path, over)
    assert space.parameters["optim.lr"].when == {"method": ("faar", "lora"), "decoder.kind": ("ts_pd", "hrnet")}
    assert space.parameters["optim.batch_size"].when is None
    line = "optim.lr: {min: 0.1, max: 1, when: {method: [faar, dora]}}"
    assert faults(tmp_path, line, f"{key}.method.1=lara", f"{key}.decoder.knd=ts_pd") == [
        f"command line: {key}.method.1=lara: must lie within ['faar', 'dora', 'lora'], got 'lara' "
        "(did you mean 'lora'?)",
        f"command line: {key}.decoder.knd=ts_pd: unknown key (did you mean 'decoder.kind'?)",
    ]


KEYS = ["decoder.cutoff", "method", "decoder.filter", "decoder.expansion", "pdrs.rho_shared", "optim.lr"]
names = st.sampled_from([*KEYS, "decoder.kind", "optim.epochs", "adapter.kind", "data.tasks", "seed", "x", "", "optim"])
values: st.SearchStrategy[Any] = st.sampled_from(
    ["faar", "dora", "ts_pd", "radial", 1, 2, 0.5, True, None, "", [], {}, [1, "faar"], [[1]], -1]
)
whens = st.dictionaries(names, values, max_size=3) | values


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(KEYS), whens, max_size=6))
def test_any_conditions_are_obeyed_or_refused_but_never_raise_anything_else(
    conditional: Space, tmp_path: Path, drawn: dict[str, Any]
) -> None:
    raw = conditional().model_dump(mode="json", exclude_unset=True)
    for key, parameter in raw["parameters"].items():
        parameter["when"] = drawn.get(key)
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    try:
        result = read_space(tmp_path / "a.yaml")
    except ConfigError as error:
        assert all(fault.startswith(f"{tmp_path}/a.yaml:") for fault in error.faults)
        return
    for sample in samples(result, 3):
        assert list(sample) == list(split_active(result.parameters, result.base, sample)[0])


# lists and points


def test_a_grid_leaves_out_what_is_inactive_and_has_each_combination_once(conditional: Space) -> None:
    rows = grid(of_grid(conditional).parameters, of_grid(conditional).base)
    assert rows == [
        {"method": "faar", "decoder.filter": "grid", "optim.batch_size": 8},
        {"method": "faar", "decoder.filter": "grid", "optim.batch_size": 16},
        {"method": "faar", "decoder.filter": "radial", "optim.batch_size": 8, "decoder.expansion": 1},
        {"method": "faar", "decoder.filter": "radial", "optim.batch_size": 8, "decoder.expansion": 2},
        {"method": "faar", "decoder.filter": "radial", "optim.batch_size": 16, "decoder.expansion": 1},
        {"method": "faar", "decoder.filter": "radial", "optim.batch_size": 16, "decoder.expansion": 2},
        {"method": "dora", "optim.batch_size": 8},
        {"method": "dora", "optim.batch_size": 16},
    ]
    with pytest.raises(ValidationError, match=r"budget\.trials: must be >= configurations x seeds = 8, got 7"):
        of_grid(conditional, budget={"trials": 7})


def test_a_grid_s_rows_run_and_are_named_by_what_they_have(conditional: Space, driver: Drive, tmp_path: Path) -> None:
    searched = of_grid(conditional)
    results = driver(searched).run().proposer.results()
    assert [r.params for r in results] == grid(searched.parameters, searched.base)
    result = {row.name for row in build_answer(results, searched.objectives).rows}
    assert {"dora, batch_size 8", "faar, filter grid, batch_size 8"} < result
    assert "faar, filter radial, batch_size 16, expansion 2" in result
    write_results(tmp_path / "results.parquet", results)
    assert [r.params for r in read_results(tmp_path / "results.parquet")] == [r.params for r in results]


def test_a_grid_in_another_order_keeps_the_order_of_the_keys(conditional: Space) -> None:
    turned = of_grid(conditional, dict(reversed(CHOICES.items())))
    rows = grid(turned.parameters, turned.base)
    assert len(rows) == 8
    assert rows[-1] == {"optim.batch_size": 16, "method": "dora"}
    assert list(rows[2]) == [key for key in turned.parameters if key in rows[2]]


@pytest.mark.parametrize("sampler", ["tpe", "points"])
def test_a_point_must_not_set_what_is_inactive_in_it(conditional: Space, sampler: str) -> None:
    points = [{"decoder.filter": "grid", "method": "faar"}, {"method": "dora", "decoder.filter": "grid"}]
    over = {"search": {"sampler": sampler}, "scheduler": {"type": "none"}}
    rule = r"warm_start.*points\.1\.decoder\.filter: is not searched in this point: method must be 'faar', got 'dora'"
    with pytest.raises(ValidationError, match=rule.partition(".*")[2]):
        conditional(CHOICES, warm_start={"points": points}, **over)
    assert conditional(CHOICES, warm_start={"points": points[:1]}, **over)


def test_listed_points_leave_to_the_base_what_they_do_not_set(conditional: Space, driver: Drive) -> None:
    points = [{"decoder.filter": "radial"}, {"method": "dora"}, {"decoder.filter": "radial", "decoder.expansion": 2}]
    listed = of_grid(conditional, search={"sampler": "points"}, warm_start={"points": points})
    assert samples(listed, 3) == points
    assert [r.params for r in driver(listed).run().proposer.results()] == points


def test_a_first_point_leaves_to_the_sampler_what_it_does_not_set(conditional: Space, driver: Drive) -> None:
    searched = conditional(CHOICES, warm_start={"points": [{"decoder.filter": "radial"}]}, budget={"trials": 1})
    (result,) = driver(searched).run().proposer.results()
    assert result.params.get("decoder.filter") == ("radial" if result.params["method"] == "faar" else None)


def test_of_the_priors_the_active_ones_are_tried_first(conditional: Space) -> None:
    result = conditional()
    first = {"method": "faar", "decoder.filter": "radial", "pdrs.rho_shared": 0.95}
    assert planned(result.search, result.parameters, result.base, ()) == [first]
    method = {"values": ["faar", "dora"], "prior": "dora"}
    result = conditional({**written(conditional), "method": method})
    assert planned(result.search, result.parameters, result.base, ()) == [{"method": "dora"}]


def test_two_parameters_that_can_be_drawn_at_odds_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    lines = [
        "version: 1",
        "name: a",
        "base: {sinewich: {conv_size: 3}}",
        "parameters:",
        "  sinewich.conv_size: {values: [1, 3]}",
        "  sinewich.blur: {values: [matrix, kernel]}",
        "objectives: [{name: delta_m, goal: maximize}]",
    ]
    file.write_text("\n".join(lines))
    with pytest.raises(ConfigError, match=r"must be matrix or none where sinewich\.conv_size is 1") as message:
        read_space(file)
    assert "a.yaml:6:" in str(message.value)
    assert "where sinewich.conv_size is 1 and sinewich.blur 'kernel': give one of them a `when`" in str(message.value)
    file.write_text("\n".join(lines).replace("kernel]}", "kernel], when: {sinewich.conv_size: 3}}"))
    assert set(read_space(file).parameters) == {"sinewich.conv_size", "sinewich.blur"}
