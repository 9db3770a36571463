from __future__ import annotations

from typing import Any, get_args

import pytest
from pydantic import ValidationError

from faar_ray.config import PRESETS, Method, TrialConfig, config_id, merged, with_dotted


def test_every_method_has_a_preset_and_every_preset_a_method() -> None:
    assert set(PRESETS) == set(get_args(Method))


@pytest.mark.parametrize("method", sorted(PRESETS))
def test_a_preset_sets_its_defaults(method: str) -> None:
    tasks = {"data": {"tasks": ["semseg"]}}
    dotted = TrialConfig.resolve({"method": method, **tasks}).dotted()
    for section, keys in PRESETS[method].items():
        for key, value in keys.items():
            assert dotted[f"{section}.{key}"] == value


def test_what_the_user_writes_wins_over_the_preset() -> None:
    assert TrialConfig.resolve({"method": "lora", "adapter": {"kind": "dora"}}).adapter.kind == "dora"
    assert TrialConfig.resolve({"method": "lora"}, **{"ranks.kind": "pdrs"}).ranks.kind == "pdrs"


@pytest.mark.parametrize("method", sorted(PRESETS))
def test_resolving_twice_changes_nothing(method: str) -> None:
    once = TrialConfig.resolve({"method": method, "data": {"tasks": ["depth"]}, "optim": {"lr": 0.01}})
    assert TrialConfig.resolve(once.model_dump(mode="json")) == once
    assert TrialConfig.resolve({}, **once.dotted()) == once


def test_the_config_id_ignores_the_seed_and_nothing_else() -> None:
    base = TrialConfig.resolve({})
    other: dict[type, Any] = {bool: lambda v: not v, int: lambda v: v + 1, float: lambda v: v * 0.5 + 0.01}
    assert config_id(TrialConfig.resolve({}, seed=7)) == config_id(base)
    changed = 0
    for key, value in base.dotted().items():
        if key != "seed" and type(value) in other:
            assert config_id(TrialConfig.resolve({}, **{key: other[type(value)](value)})) != config_id(base), key
            changed += 1
    assert changed > 15


def test_the_config_id_stays_the_same_from_process_to_process() -> None:
    first, second = (config_id(TrialConfig.resolve({"pdrs": {"beta": 0.5}})) for _ in range(2))
    assert first == second
    assert len(first) == 8


def test_a_config_is_frozen() -> None:
    with pytest.raises(ValidationError):
        TrialConfig.resolve({}).seed = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("pdrs.rho_shared", 1.2),
        ("pdrs.rho_shared", 0),
        ("pdrs.rho_task", -0.1),
        ("pdrs.beta", 1),
        ("pdrs.init_rank", 0),
        ("pdrs.init_rank", 8.0),
        ("pdrs.init_rank", "8"),
        ("pdrs.init_rank", True),
        ("optim.lr", float("inf")),
        ("optim.lr", float("nan")),
        ("optim.lr", "1e-3"),
        ("optim.epochs", 0),
        ("data.tasks", []),
        ("data.tasks", ["semseg", "semseg"]),
        ("data.tasks", "semseg"),
        ("data.tasks", ["sky"]),
        ("backbone.pretrained", 1),
        ("method", "pdrs"),
        ("seed", -1),
        ("pdrs.bata", 0.9),
        ("unknown", 1),
        ("pdrs", 3),
        ("pdrs.start_epoch", 6),
        ("pdrs.free_epochs", 6),
    ],
)
def test_a_value_out_of_its_rule_is_refused(key: str, value: object) -> None:
    with pytest.raises(ValidationError):
        TrialConfig.resolve({}, **{key: value})


def test_parts_that_do_not_fit_each_other_are_refused_by_key() -> None:
    with pytest.raises(ValidationError, match=r"ranks\.kind: must be fixed"):
        TrialConfig.resolve({"adapter": {"kind": "none"}})
    with pytest.raises(ValidationError, match=r"data\.tasks: must be one task"):
        TrialConfig.resolve({"method": "single_task"})


def test_rho_of_task_adapters_follows_the_shared_one_unless_given() -> None:
    pdrs = TrialConfig.resolve({"pdrs": {"rho_shared": 0.8}}).pdrs
    assert (pdrs.rho(shared=True), pdrs.rho(shared=False)) == (0.8, 0.8)
    pdrs = TrialConfig.resolve({"pdrs": {"rho_shared": 0.8, "rho_task": 0.5}}).pdrs
    assert (pdrs.rho(shared=True), pdrs.rho(shared=False)) == (0.8, 0.5)


def test_merging_changes_neither_side() -> None:
    base, over = {"a": {"b": 1, "c": 2}}, {"a": {"b": 3}, "d": 4}
    assert merged(base, over) == {"a": {"b": 3, "c": 2}, "d": 4}
    assert with_dotted(base, {"a.b": 5}) == {"a": {"b": 5, "c": 2}}
    assert (base, over) == ({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}, "d": 4})


def test_every_key_has_a_description() -> None:
    schema = TrialConfig.model_json_schema()
    for section in schema["$defs"].values():
        assert section["description"]
        for key, field in section["properties"].items():
            assert field.get("description"), key
