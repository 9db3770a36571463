"""What a person meant who wrote a name of another tool, of another section, or the wrong file."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm

from faar_ray.config.common_names import COMMON, MAIN_KEYS
from faar_ray.config.trial_file import TrialFile, read_trial
from faar_ray.config.validation_messages import dotted_names
from faar_ray.errors import ConfigError
from faar_ray.models.backbone import TORCHVISION
from faar_ray.objectives.metrics import Objective
from faar_ray.tune.__main__ import main
from faar_ray.tune.space.parameter import DEFAULTS, Parameter
from faar_ray.tune.space.space import SearchSpace, read_space

SPACE = """\
version: 1
name: small
parameters: {pdrs.rho_shared: {min: 0.5, max: 0.9}}
objectives: [{name: delta_m, goal: maximize}]
"""
LOCAL = {*Parameter.model_fields, *Objective.model_fields, "kind", "parameters"}


def fault(tmp_path: Path, *overrides: str, text: str = SPACE) -> str:
    file = tmp_path / "small.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_space(file, overrides)
    return str(caught.value)


def test_every_name_means_keys_that_exist() -> None:
    known = {*dotted_names(SearchSpace), *DEFAULTS}
    assert {key for keys in COMMON.values() for key in keys} <= known | LOCAL
    assert set(MAIN_KEYS.values()) <= known
    assert all(map(timm.is_model, TORCHVISION.values()))


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("rho=0.5", "'base.pdrs.rho_shared' or 'base.pdrs.rho_task'"),
        ("pdrs.rho=0.5", "'rho_shared' or 'rho_task'"),
        ("rank=4", "'base.ranks.init_rank'"),
        ("lr=0.1", "'base.optim.lr'"),
        ("optim.learning_rate=0.1", "'lr'"),
        ("epochs=3", "'base.optim.epochs'"),
        ("max_epochs=3", "'base.optim.epochs'"),
        ("batch_size=3", "'base.optim.batch_size'"),
        ("init_rank=3", "'base.ranks.init_rank'"),
        ("n_trials=3", "'budget.trials'"),
        ("num_samples=3", "'budget.trials'"),
        ("search.trials=3", "'budget.trials'"),
        ("sampler=tpe", "'search.sampler'"),
        ("scheduler.grace_period=2", "'min_epochs'"),
        ("scheduler.type=ASHA", "'asha'"),
        ("parameters.pdrs.rho_shared.low=0.1", "'min'"),
        ("parameters={rho: {min: 0.1, max: 0.5}}", "'pdrs.rho_shared' or 'pdrs.rho_task'"),
        ("parameters={lr: {min: 0.1, max: 0.5}}", "'optim.lr'"),
        ("objectives=[{name: delta_m, goal: maximize, mode: max}]", "'goal'"),
        ("warm_start.points=[{rho: 0.6}]", "'pdrs.rho_shared'"),
        ("backbone=swin_t", "'backbone.name'"),
        ("decoder=hrnet", "'decoder.kind'"),
    ],
)
def test_a_common_mistake_is_answered_with_the_key_that_was_meant(tmp_path: Path, override: str, meant: str) -> None:
    assert fault(tmp_path, override).endswith(f"(did you mean {meant}?)")


def test_a_renamed_key_is_named(tmp_path: Path) -> None:
    assert fault(tmp_path, "pdrs.init_rank=4").endswith("unknown key: it is called ranks.init_rank now")


def test_keys_of_a_trial_at_the_top_of_a_search_space_are_sent_to_base(tmp_path: Path) -> None:
    text = fault(tmp_path, text=f"{SPACE}seed: 3\noptim: {{epochs: 3}}\n")
    assert "seed: unknown key (did you mean 'base.seed' or 'search.seed'?)" in text
    assert "optim: unknown key (did you mean 'base.optim'?)" in text


def test_a_trial_s_file_is_not_sent_to_keys_of_a_search(tmp_path: Path) -> None:
    file = tmp_path / "trial.yaml"
    file.write_text("method: faar\nn_trials: 4\nepochs: 3\n")
    with pytest.raises(ConfigError) as caught:
        read_trial(file)
    trials, epochs = caught.value.faults
    assert trials.endswith("n_trials: unknown key")
    assert epochs.endswith("epochs: unknown key (did you mean 'optim.epochs'?)")
    assert not any(name.startswith("base.") for name in dotted_names(TrialFile).values())


def test_a_search_space_given_to_train_and_a_trial_given_to_tune_name_the_other_command(tmp_path: Path) -> None:
    space, trial = tmp_path / "space.yaml", tmp_path / "trial.yaml"
    space.write_text(SPACE)
    trial.write_text("method: faar\n")
    with pytest.raises(ConfigError, match=r":1:1: is a search space, .*: python -m faar_ray\.tune .*space\.yaml$"):
        read_trial(space)
    with pytest.raises(ConfigError, match=r":1:1: is a trial's config, .*: python -m faar_ray\.train .*trial\.yaml$"):
        read_space(trial)


def test_tune_without_a_file_lists_the_runs_that_can_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "rho").mkdir(parents=True)
    (tmp_path / "runs" / "rho" / "space.yaml").write_text(SPACE)
    for command in (["--resume"], ["budget.trials=3", "--resume"]):
        assert main(command) == 2
        error = capsys.readouterr().err
        assert error.startswith("SPACE.yaml is missing: python -m faar_ray.tune SPACE.yaml --resume\n")
        assert "  python -m faar_ray.tune runs/rho/space.yaml --resume\n" in error
    assert main([]) == 2
    assert capsys.readouterr().err == "SPACE.yaml is missing: python -m faar_ray.tune SPACE.yaml\n"


def test_a_missing_file_a_folder_and_json_are_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("search_spaces", "runs/rho"):
        Path(folder).mkdir(parents=True)
    Path("search_spaces/beta.yaml").write_text(SPACE)
    Path("runs/rho/space.yaml").write_text(SPACE)
    Path("trial.json").write_text('{\n\t"method": "faar",\n\t"optim": {"lr": 1e-3}\n}\n')

    def answer(file: str) -> str:
        with pytest.raises(ConfigError) as caught:
            read_space(Path(file))
        return str(caught.value)

    assert answer("bata.yaml") == "bata.yaml: no such file (did you mean 'search_spaces/beta.yaml'?)"
    assert answer("search_spaces/beta.json").endswith("(did you mean 'search_spaces/beta.yaml'?)")
    assert answer("beta").endswith("(did you mean 'search_spaces/beta.yaml'?)")
    assert answer("rho").endswith("(did you mean 'runs/rho/space.yaml'?)")
    assert answer("nothing_like_it.yaml") == "nothing_like_it.yaml: no such file"
    assert answer("search_spaces").endswith("is a folder, not a file (it holds beta.yaml)")
    assert answer("runs/rho").endswith("python -m faar_ray.tune runs/rho/space.yaml --resume)")
    assert read_trial(Path("trial.json")).optim.lr == 1e-3
