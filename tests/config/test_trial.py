from __future__ import annotations

from typing import Any, get_args

import pytest
from pydantic import ValidationError

from faar_ray.config.trial import PRESETS, Method, TrialConfig, at_stage, config_id, merge_sections, with_dotted


def test_every_method_has_a_preset_and_every_preset_a_method() -> None:
    assert set(PRESETS) == set(get_args(Method))


def tasks_of(method: str) -> dict[str, Any]:
    return {"data": {"tasks": ["semseg"] if method == "single_task" else ["semseg", "depth"]}}


@pytest.mark.parametrize("method", sorted(PRESETS))
def test_a_preset_sets_its_defaults(method: str) -> None:
    dotted = TrialConfig.resolve({"method": method, **tasks_of(method)}).dotted()
    for section, keys in PRESETS[method].items():
        for key, value in keys.items():
            assert dotted[f"{section}.{key}"] == (list(value) if isinstance(value, tuple) else value)


def test_what_the_user_writes_wins_over_the_preset() -> None:
    assert TrialConfig.resolve({"method": "lora", "adapter": {"kind": "dora"}}).adapter.kind == "dora"
    assert TrialConfig.resolve({"method": "lora"}, **{"ranks.kind": "pdrs"}).ranks.kind == "pdrs"


@pytest.mark.parametrize("method", sorted(PRESETS))
def test_resolving_twice_changes_nothing(method: str) -> None:
    once = TrialConfig.resolve({"method": method, **tasks_of(method), "optim": {"lr": 0.01}})
    assert TrialConfig.resolve(once.model_dump(mode="json")) == once
    assert TrialConfig.resolve({}, **once.dotted()) == once


def test_the_config_id_ignores_the_seed_and_nothing_else() -> None:
    base = TrialConfig.resolve({})
    other: dict[type, Any] = {bool: lambda v: not v, int: lambda v: v + 2, float: lambda v: v * 0.5 + 0.01}
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
        ("ranks.init_rank", 0),
        ("ranks.init_rank", 8.0),
        ("ranks.init_rank", "8"),
        ("ranks.init_rank", True),
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


def test_a_number_may_be_given_per_stage_with_keys_as_text_or_numbers() -> None:
    for keys in ((0, 1, 2, 3), ("0", "1", "2", "3"), ("3", "1", "2", "0")):
        values = {0: 2, 1: 2, 2: 3, 3: 16}
        ranks = TrialConfig.resolve({"ranks": {"init_rank": {key: values[int(key)] for key in keys}}}).ranks
        assert [at_stage(ranks.init_rank, stage) for stage in range(4)] == [2, 2, 3, 16]
    ranks = TrialConfig.resolve({"ranks": {"init_rank": 8}}).ranks
    assert (ranks.initial(shared=True, stage=2), ranks.initial(shared=False, stage=2)) == (8, 8)
    ranks = TrialConfig.resolve({"ranks": {"init_rank": 8, "task_init_rank": values}}).ranks
    assert [ranks.initial(shared=shared, stage=3) for shared in (True, False)] == [8, 16]
    rho = {"0": 0.5, "1": 0.6, "2": 0.7, "3": 0.8}
    config = TrialConfig.resolve({"pdrs": {"rho_shared": 0.9, "rho_task": rho}})
    assert [config.pdrs.rho(shared=False, stage=stage) for stage in range(4)] == [0.5, 0.6, 0.7, 0.8]
    assert config.pdrs.rho(shared=True, stage=3) == 0.9
    assert TrialConfig.resolve(config.model_dump(mode="json")) == config
    assert TrialConfig.resolve({}, **config.dotted()) == config


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("ranks.init_rank", {"0": 2, "1": 2, "2": 3}, "each of the stages 0, 1, 2, 3"),
        ("ranks.init_rank", {"0": 2, "1": 2, "2": 3, "3": 4, "4": 5}, "each of the stages"),
        ("ranks.init_rank", {"0": 2, "1": 2, "2": 3, "3": 0}, "greater than or equal to 1"),
        ("ranks.init_rank", {}, "got none"),
        ("pdrs.rho_shared", {"0": 0.5, "1": 0.5, "2": 1.5, "3": 0.5}, "satisfy 0 < rho <= 1"),
        ("pdrs.rho_task", {"low": 0.5}, "each of the stages"),
    ],
)
def test_a_mapping_of_stages_must_be_whole_and_valid(key: str, value: object, why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        TrialConfig.resolve({}, **{key: value})


def test_consensus_without_another_task_is_refused_with_the_reason() -> None:
    with pytest.raises(
        ValidationError, match=r"decoder\.xt_cons: must be false with one task: .* beside depth there is none"
    ):
        TrialConfig.resolve({"method": "faar", "data": {"tasks": ["depth"]}})
    for mended in ({"xt_cons": False}, {"kind": "hrnet"}):
        TrialConfig.resolve({"method": "faar", "data": {"tasks": ["depth"]}, "decoder": mended})
    with pytest.raises(ValidationError, match=r"decoder\.primary: must be among data\.tasks"):
        TrialConfig.resolve({"decoder": {"primary": ["edge"]}})


def test_a_single_task_reference_needs_no_word_about_consensus() -> None:
    config = TrialConfig.resolve({"method": "single_task", "data": {"tasks": ["depth"]}, "decoder": {"kind": "ts_pd"}})
    assert not config.decoder.xt_cons


def test_the_two_statements_of_faar_differ_where_paper_and_code_do() -> None:
    paper, code = (TrialConfig.resolve({"method": m}) for m in ("faar", "faar_release"))
    assert (paper.pdrs.rho_shared, paper.ranks.init_rank, paper.pdrs.update) == (0.95, 64, "active")
    assert (code.pdrs.rho_shared, code.ranks.init_rank, code.pdrs.update) == (0.2, 32, "all")
    assert (code.pdrs.floor, code.pdrs.margin, code.pdrs.beta, code.pdrs.score_clamp) == (2, 1, 0.98, 100)
    assert (paper.adapter.norm, paper.adapter.direction, paper.adapter.magnitude) == ("detached", "weight", "free")
    assert (code.adapter.norm, code.adapter.direction, code.adapter.magnitude) == ("attached", "normalised", "anchored")
    assert (paper.decoder.filter, paper.decoder.spectra, paper.optim.min_lr) == ("grid", "native", 0)
    assert (code.decoder.filter, code.decoder.spectra, code.placement.reductions) == ("rings", "upsampled", "adapted")


def test_under_its_recipe_the_released_codes_learning_rate_rises_to_2e_4_at_batch_32() -> None:
    optim = TrialConfig.resolve({"method": "faar_release", "recipe": "faar"}).optim
    assert optim.effective(optim.lr) == 3.125e-5
    assert optim.effective(optim.min_lr) == pytest.approx(2e-4, rel=1e-12)
    alone = TrialConfig.resolve({"method": "faar_release"}).optim
    assert alone.min_lr == pytest.approx(6.4 * alone.lr, rel=1e-12)


def test_merging_changes_neither_side() -> None:
    base, over = {"a": {"b": 1, "c": 2}}, {"a": {"b": 3}, "d": 4}
    assert merge_sections(base, over) == {"a": {"b": 3, "c": 2}, "d": 4}
    assert with_dotted(base, {"a.b": 5}) == {"a": {"b": 5, "c": 2}}
    assert (base, over) == ({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}, "d": 4})


def test_every_key_has_a_description() -> None:
    schema = TrialConfig.model_json_schema()
    for section in schema["$defs"].values():
        assert section["description"]
        for key, field in section["properties"].items():
            assert field.get("description"), key


def test_a_method_among_the_overrides_brings_its_preset_over_the_base() -> None:
    base = {"adapter": {"kind": "dora", "scale": 2.0}, "decoder": {"kind": "ts_pd", "expansion": 2}}
    control = TrialConfig.resolve(base, method="decoder_only", **{"decoder.width": 9})
    assert (control.adapter.kind, control.ranks.kind, control.backbone.trainable) == ("none", "fixed", "none")
    assert (control.decoder.kind, control.decoder.expansion, control.decoder.width) == ("ts_pd", 2, 9)
    assert TrialConfig.resolve({"method": "decoder_only", **base, "ranks": {"kind": "fixed"}}).adapter.kind == "dora"
