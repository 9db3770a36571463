"""The papers' recipes: their values, and what they give way to."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from faar_ray.config.presets import PRESETS, RECIPES, differences
from faar_ray.config.trial import ADDED, RecipeName, TrialConfig, config_id
from faar_ray.config.trial_file import read_trial
from faar_ray.errors import ConfigError
from faar_ray.tune.space.parameter import DEFAULTS

DOCUMENT = Path(__file__).parents[2] / "docs" / "recipes.md"
SHARED: dict[str, Any] = {
    "data.image_size": 448,
    "data.augment.preset": "auto",
    **{f"data.augment.{key}": None for key in ("flip", "rotation", "scale", "crop", "colour")},
    "backbone.trainable": "light",
    "backbone.drop_path": 0.2,
    "adapter.scale": 4.0,
    "adapter.dropout": 0.05,
    "optim.epochs": 300,
    "optim.batch_size": 32,
    "optim.lr": 5e-4,
    "optim.decoder_lr": None,
    "optim.backbone_lr": None,
    "optim.lr_batch": 512,
    "optim.warmup_epochs": 20.0,
    "optim.warmup_steps": None,
    "optim.warmup_lr": 5e-7,
    "optim.weight_decay": 0.05,
    "optim.decay_position_tables": True,
    "optim.clip": 5.0,
    "optim.precision": "fp16",
}
"""What MTLoRA's code, TADFormer's and FAAR's release have in common."""


@pytest.mark.parametrize(("recipe", "min_lr"), [("mtlora", 5e-6), ("tadformer", 5e-6), ("faar", 3.2e-3)])
def test_a_recipe_has_the_values_of_the_authors_code(recipe: str, min_lr: float) -> None:
    values = {key: setting.value for key, setting in RECIPES[recipe].items()}
    assert values == SHARED | {"optim.min_lr": min_lr}
    dotted = TrialConfig.resolve({"recipe": recipe}).dotted()
    assert {key: dotted[key] for key in values} == values


def test_every_recipe_of_the_key_has_values_and_every_value_a_source_and_a_row_in_the_documents() -> None:
    assert {"none", *RECIPES} == set(get_args(RecipeName))
    lines = DOCUMENT.read_text().splitlines()
    for recipe, settings in RECIPES.items():
        table = lines[lines.index(f"## {recipe}") :]
        for key, setting in settings.items():
            assert setting.source
            value = {None: "null", True: "true", False: "false"}.get(setting.value, f"{setting.value}")
            assert f"| `{key}` | {value} | {setting.source} |" in table, key


def test_batch_32_trains_at_the_papers_rates() -> None:
    optim = TrialConfig.resolve({"recipe": "mtlora"}).optim
    assert [optim.effective(rate) for rate in (optim.lr, optim.warmup_lr or 0, optim.min_lr)] == pytest.approx(
        [3.125e-5, 3.125e-8, 3.125e-7], rel=1e-12
    )
    optim = TrialConfig.resolve({"recipe": "faar"}).optim
    assert optim.effective(optim.min_lr) == pytest.approx(2e-4, rel=1e-12)
    assert TrialConfig.resolve({"recipe": "faar"}, **{"optim.batch_size": 64}).optim.effective(5e-4) == 6.25e-5
    assert TrialConfig.resolve({}).optim.effective(5e-4) == 5e-4


def test_without_a_recipe_nothing_changes() -> None:
    assert TrialConfig.resolve({"recipe": "none"}) == TrialConfig.resolve({}) == TrialConfig()
    older = TrialConfig.resolve({}).model_dump(mode="json")
    for key in ADDED:
        *sections, name = key.split(".")
        del (older[sections[0]] if sections else older)[name]
    assert TrialConfig.resolve(older) == TrialConfig.resolve({})


def test_configs_of_older_searches_keep_their_ids() -> None:
    """The ids that what came before recipes gave."""
    why = "a search resumed would not know its configurations: add a new key to ADDED in config/presets/added_keys.py"
    assert config_id(TrialConfig.resolve({})) == "db1acae1", why
    assert config_id(TrialConfig.resolve({"method": "free_sinewich", "optim": {"lr": 1e-3}})) == "af8a0dc6"
    assert set(ADDED) <= DEFAULTS.keys()
    others: dict[str, Any] = {
        "recipe": "mtlora",
        "adapter.dropout": 0.1,
        "placement.reductions": "trained",
        "placement.dead_parameters": True,
        "optim.lr_batch": 8,
        "optim.decay_position_tables": True,
    }
    others |= {"optim.warmup_epochs": 0.5, "optim.warmup_lr": 0.0, "optim.min_lr": 1e-6}
    others |= {"optim.loss_norm": "running_mean", "optim.loss_norm_beta": 0.9}
    ids = {config_id(TrialConfig.resolve({}, **{key: value})) for key, value in others.items()}
    assert len(ids | {"db1acae1"}) == len(others) + 1


def test_what_the_user_writes_wins_over_the_recipe() -> None:
    raw = {"recipe": "mtlora", "optim": {"epochs": 100, "lr": 1e-3}, "backbone": {"drop_path": 0.1}}
    config = TrialConfig.resolve(raw, **{"optim.clip": 1.0})
    assert (config.optim.epochs, config.optim.lr, config.backbone.drop_path, config.optim.clip) == (100, 1e-3, 0.1, 1.0)
    assert (config.optim.warmup_epochs, config.data.image_size) == (20, 448)
    sampled = TrialConfig.resolve({"optim": {"epochs": 50}}, recipe="mtlora", **{"optim.min_lr": 0.0})
    assert (sampled.optim.epochs, sampled.optim.min_lr, sampled.optim.lr_batch) == (50, 0.0, 512)


@pytest.mark.parametrize("recipe", sorted(RECIPES))
@pytest.mark.parametrize("method", sorted(PRESETS))
def test_the_methods_preset_wins_over_the_recipe(method: str, recipe: str) -> None:
    tasks = ["semseg"] if method == "single_task" else ["semseg", "depth"]
    config = TrialConfig.resolve({"method": method, "recipe": recipe, "data": {"tasks": tasks}})
    alone = TrialConfig.resolve({"method": method, "data": {"tasks": tasks}})
    assert config.backbone.trainable == alone.backbone.trainable
    for section in ("adapter", "ranks", "pdrs", "decoder", "placement", "sinewich"):
        given = PRESETS[method].get(section, {})
        assert {key: getattr(getattr(config, section), key) for key in given} == given
    of_recipe = TrialConfig.resolve({"recipe": recipe}).optim
    assert config.optim == of_recipe.model_copy(update=PRESETS[method].get("optim", {}))
    assert TrialConfig.resolve(config.model_dump(mode="json")) == config
    assert TrialConfig.resolve({}, **config.dotted()) == config


def test_warm_up_is_in_steps_or_in_epochs_and_never_both() -> None:
    assert TrialConfig.resolve({}).optim.warmup(100) == 20
    for raw in ({"optim": {"warmup_epochs": 2}}, {"optim": {"warmup_epochs": 2, "warmup_steps": None}}):
        optim = TrialConfig.resolve(raw).optim
        assert (optim.warmup_steps, optim.warmup(6 * 45)) == (None, 90)
    assert TrialConfig.resolve({"optim": {"warmup_epochs": 0.29, "epochs": 100}}).optim.warmup(10_000) == 29
    assert TrialConfig.resolve({"optim": {"warmup_steps": None}}).optim.warmup(100) == 0
    with pytest.raises(ValidationError, match="warmup_steps: must be null where warmup_epochs is 2, got 5"):
        TrialConfig.resolve({"optim": {"warmup_steps": 5}}, **{"optim.warmup_epochs": 2})


def test_steps_of_warm_up_that_are_written_or_searched_replace_the_recipes_epochs() -> None:
    for config in (
        TrialConfig.resolve({"recipe": "mtlora", "optim": {"warmup_steps": 50}}),
        TrialConfig.resolve({"recipe": "mtlora"}, **{"optim.warmup_steps": 50}),
    ):
        assert (config.optim.warmup_steps, config.optim.warmup_epochs) == (50, None)


def test_a_warm_up_as_long_as_the_training_is_refused_with_what_would_be_in_proportion() -> None:
    with pytest.raises(ValidationError, match=r"optim\.warmup_epochs: must be below optim\.epochs = 3, got 3"):
        TrialConfig.resolve({"optim": {"warmup_epochs": 3, "epochs": 3}})
    why = r"= 6, got 20 \(of recipe faar, of 300 epochs; in proportion it is 0\.4 here\)"
    with pytest.raises(ValidationError, match=why):
        TrialConfig.resolve({"recipe": "faar", "optim": {"epochs": 6}})


def test_the_differences_are_the_keys_that_are_not_the_recipes() -> None:
    assert differences("mtlora", TrialConfig.resolve({"recipe": "mtlora"}).dotted()) == []
    assert differences("none", TrialConfig.resolve({}).dotted()) == []
    raw = {"recipe": "mtlora", "optim": {"warmup_steps": 50}, "data": {"image_size": [448, 448], "name": "nyud"}}
    raw["data"] |= {"root": "NYUD", "tasks": ["semseg", "depth"], "augment": {"colour": 0.2}}
    found = differences("mtlora", TrialConfig.resolve(raw, **{"optim.clip": 1.0, "adapter.kind": "lora"}).dotted())
    assert [(d.key, d.recipe, d.config) for d in found] == [
        ("data.augment.colour", None, 0.2),
        ("optim.warmup_epochs", 20.0, None),
        ("optim.warmup_steps", None, 50),
        ("optim.clip", 5.0, 1.0),
    ]
    assert [d.source for d in found] == [RECIPES["mtlora"][d.key].source for d in found]
    plain = {d.key for d in differences("faar", TrialConfig.resolve({}).dotted())}
    same = {"backbone.trainable", "adapter.scale", "optim.lr", "optim.decoder_lr", "optim.backbone_lr"}
    same |= {"optim.weight_decay", "optim.clip", *(key for key in SHARED if key.startswith("data.augment"))}
    assert plain == RECIPES["faar"].keys() - same


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (
            "recipe: mtlra",
            "1:1: recipe: must be one of none, mtlora, tadformer, faar, got 'mtlra' (did you mean 'mtlora'?)",
        ),
        ("recipe: [mtlora]", "1:1: recipe: must be one of none, mtlora, tadformer, faar, got ['mtlora']"),
        ("optim: {warmup_epoch: 3}", "1:9: optim.warmup_epoch: unknown key (did you mean 'warmup_epochs'?)"),
        ("optim: {eta_min: 0}", "unknown key (did you mean 'min_lr'?)"),
        ("min_lr: 0", "unknown key (did you mean 'optim.min_lr'?)"),
        (
            "optim: {warmup_epochs: 2, warmup_steps: 2}",
            "1:27: optim.warmup_steps: must be null where",
        ),
        ("optim: {min_lr: -1.0}", "optim.min_lr: must satisfy min_lr >= 0"),
        ("optim: {lr_batch: 0}", "optim.lr_batch: must"),
    ],
)
def test_faults_of_the_new_keys_are_told_with_their_place(tmp_path: Path, line: str, fault: str) -> None:
    file = tmp_path / "trial.yaml"
    file.write_text(line + "\n")
    with pytest.raises(ConfigError) as caught:
        read_trial(file)
    assert fault in str(caught.value)
