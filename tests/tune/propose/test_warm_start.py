"""Learning from an older run: which of its trials count, who hears of them, and what happens at a kill."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from faar_ray.errors import ConfigError
from faar_ray.records import TrialResult
from faar_ray.storage.run_location import location_of
from faar_ray.tune.__main__ import main
from faar_ray.tune.propose import journal
from faar_ray.tune.propose.journal import open_journal
from faar_ray.tune.propose.proposer import Proposer
from faar_ray.tune.propose.warm_start import OlderRunFault, read_older, warm_start
from faar_ray.tune.run.run_folder import lock_run
from faar_ray.tune.show.dry_run import samples
from faar_ray.tune.space.space import SearchSpace

Space = Callable[..., SearchSpace]
Drive = Callable[..., Any]
LR = {"optim.lr": {"min": 1e-4, "max": 1e-2, "log": True}}
ONE = [{"name": "delta_m", "goal": "maximize"}]


@pytest.fixture
def older(space: Space, driver: Drive, tmp_path: Path) -> Callable[..., Path]:
    """Runs a small search to its end, as a folder below `tmp_path/runs`."""

    def make(name: str = "old", **over: Any) -> Path:
        folder = tmp_path / "runs" / name
        plain = {"budget": {"trials": 12}, "scheduler": {"type": "none"}, "parameters": LR}
        ran = space(name=name, **{**plain, **over})
        lock_run(folder, ran).close()
        driver(ran, folder / "study.log").run()
        return folder

    return make


@pytest.fixture
def learning(space: Space, tmp_path: Path) -> Callable[..., SearchSpace]:
    """Makes search spaces that learn from `old`."""

    def make(**over: Any) -> SearchSpace:
        given = {"from": "old", **over.pop("warm_start", {})}
        plain = {"scheduler": {"type": "none"}, "parameters": LR, "storage": {"path": str(tmp_path / "runs")}}
        return space(**{**plain, **over}, warm_start=given)

    return make


def begun(space: SearchSpace, path: Path) -> tuple[optuna.Study, list[str]]:
    """The journal of a search, warm."""
    study, output = open_journal(path, "tiny", space.objectives), list[str]()
    warm_start(study, space, output.append)
    return study, output


def rows(results: list[TrialResult]) -> list[tuple[Any, ...]]:
    return [(r.trial_id, r.config_id, r.seed, r.state, tuple(r.params.items())) for r in results]


def test_the_sampler_alone_hears_of_an_older_run(
    older: Callable[..., Path], learning: Space, driver: Drive, tmp_path: Path
) -> None:
    old = older()
    search = {"startup_trials": 6, "replicates": {"top": 2, "seeds": 2}}
    space = learning(search=search, warm_start={"points": [{"optim.lr": 0.002}]})
    study, output = begun(space, tmp_path / "new.log")
    assert output == ["warm start from old: 12 finished trials fit, 0 do not"]
    played = driver(space, tmp_path / "new.log").run()
    results = played.proposer.results()
    assert [r.trial_id for r in results[:4]] == ["t000-s0", "t001-s0", "t002-s0", "t003-s0"]
    assert results[0].params == {"pdrs.rho_shared": 0.95, "optim.lr": results[0].params["optim.lr"]}
    assert results[1].params["optim.lr"] == 0.002
    assert [r.seed for r in results] == [0, 0, 0, 0, 1, 1]
    assert {r.trial_id.removesuffix("-s1") for r in results[4:]} < {r.trial_id.removesuffix("-s0") for r in results[:4]}
    assert played.proposer.counts() == {"complete": 6, "pruned": 0, "failed": 0}
    assert set(played.proposer.history()) == {12, 13, 14, 15}  # numbers of its own, those of the older run stand first
    marked = [trial for trial in study.trials if "warm_start" in trial.user_attrs]
    assert [trial.number for trial in marked] == list(range(12))
    assert {trial.user_attrs["warm_start"] for trial in marked} == {"old"}
    before = journal.results(journal.read_journal(old / "study.log"))
    assert [trial.user_attrs["warm_start_trial"] for trial in marked] == [r.trial_id for r in before]
    assert [trial.values for trial in marked] == [[r.metrics["delta_m"], r.metrics["trainable_params"]] for r in before]
    assert study.user_attrs["warm_start"] == {"run": "old", "added": 12, "skipped": {}}


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "gp", "cmaes"])
def test_what_is_proposed_depends_on_what_the_older_run_found(
    older: Callable[..., Path], learning: Space, tmp_path: Path, sampler: str
) -> None:
    """The first ask, with the older run's values as they were and turned upside down."""
    one = {} if sampler == "nsga2" else {"objectives": ONE}
    older(budget={"trials": 20}, **one)
    sizes = {"population": 6} if sampler in ("nsga2", "cmaes") else {}
    proposed = []
    for goal in ("maximize", "minimize"):
        objectives = [{"name": "delta_m", "goal": goal}, *({"name": "trainable_params", "goal": goal},) * bool(not one)]
        fresh = {"pdrs.rho_shared": {"min": 0.5, "max": 0.99, "scale": "log1m", "prior": None}, **LR}
        space = learning(objectives=objectives, search={"sampler": sampler, **sizes}, parameters=fresh)
        study, _ = begun(space, tmp_path / f"{goal}.log")
        job = Proposer(space, study).next_job()
        assert job is not None
        assert job.trial_id == "t000-s0"
        proposed.append(job.params)
    assert proposed[0] != proposed[1]


def test_a_search_with_an_older_run_killed_anywhere_ends_as_an_undisturbed_one(
    older: Callable[..., Path], learning: Space, driver: Drive, tmp_path: Path
) -> None:
    older(budget={"trials": 5})
    space = learning(search={"startup_trials": 2, "replicates": {"top": 2, "seeds": 2}})
    begun(space, tmp_path / "whole.log")
    whole = rows(driver(space, tmp_path / "whole.log").run().proposer.results())
    lines = (tmp_path / "whole.log").read_bytes().splitlines(keepends=True)
    done = next(index for index, line in enumerate(lines) if b'"added"' in line)
    for kept in (*range(2, done + 3), *range(done + 3, len(lines), 4)):
        path = tmp_path / f"{kept}.log"
        path.write_bytes(b"".join(lines[:kept]))
        study, output = begun(space, path)
        assert len(journal.older(study)) == 5
        assert len(output) == (kept <= done)
        assert rows(driver(space, path).run().proposer.results()) == whole, f"killed after line {kept}"


def test_once_added_the_older_run_may_go(older: Callable[..., Path], learning: Space, tmp_path: Path) -> None:
    old = older(budget={"trials": 4})
    begun(learning(), tmp_path / "new.log")
    shutil.rmtree(old)
    study, output = begun(learning(), tmp_path / "new.log")
    assert (len(study.trials), output) == (4, [])


def test_trials_that_do_not_fit_are_skipped_and_counted(
    older: Callable[..., Path], learning: Space, driver: Drive
) -> None:
    older(search={"seed": 3})
    lr = {"optim.lr": {"min": 1e-4, "max": 1e-3, "log": True}}
    outcome = read_older(learning(parameters=lr), "old")
    assert all(result.params["optim.lr"] <= 1e-3 for result in outcome.fitting)
    assert outcome.skipped == {"outside the bounds": 12 - len(outcome.fitting)}
    assert 0 < len(outcome.fitting) < 12
    more = {**LR, "pdrs.beta": {"min": 0.5, "max": 0.99}}
    assert read_older(learning(parameters=more), "old").skipped == {"searched other keys": 12}
    other = [*ONE, {"name": "val/semseg/miou", "goal": "maximize"}]
    assert read_older(learning(objectives=other), "old").skipped == {"without the objectives": 12}


def test_only_finished_trials_count_and_failures_do_not(space: Space, driver: Drive, tmp_path: Path) -> None:
    def train(job: Any, epoch: int) -> dict[str, float]:
        if job.number == 1:
            return {"error": 1.0}
        return {"delta_m": -float(job.number or 0), "trainable_params": 1e5}

    ran = space(name="old", controls=[{"method": "dora"}])
    lock_run(tmp_path / "runs" / "old", ran).close()
    played = driver(ran, tmp_path / "runs" / "old" / "study.log", train=train).run()
    states = [trial.state for trial in played.study.trials]
    assert {TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL} <= set(states)
    result = read_older(space(storage={"path": str(tmp_path / "runs")}), "old")
    assert len(result.fitting) == states.count(TrialState.COMPLETE)
    assert result.skipped == {}


def test_conditions_must_be_met_by_what_an_older_trial_has(conditional: Space, driver: Drive, tmp_path: Path) -> None:
    storage = {"path": str(tmp_path / "runs")}
    ran = conditional(name="old", storage=storage, scheduler={"type": "none"}, budget={"trials": 12})
    lock_run(tmp_path / "runs" / "old", ran).close()
    driver(ran, tmp_path / "runs" / "old" / "study.log").run()
    same = conditional(storage=storage)
    assert len(read_older(same, "old").fitting) == 12
    raw = same.model_dump(mode="json", exclude_unset=True)
    raw["parameters"]["pdrs.rho_shared"]["when"] = {"method": "faar"}  # and pdrs_lora, before
    result = read_older(SearchSpace.model_validate(raw), "old")
    assert all(("pdrs.rho_shared" in r.params) == (r.params["method"] == "faar") for r in result.fitting)
    assert result.skipped["searched other keys"] == 12 - len(result.fitting) > 0


@pytest.mark.parametrize(
    ("over", "why"),
    [
        ({"base": {"optim": {"batch_size": 16}}}, ["optim.batch_size was 8 there and is 16 here"]),
        (
            {"base": {"data": {"train_images": 64}, "ranks": {"init_rank": 8}}},
            ["data.train_images was 32 there and is 64 here", "ranks.init_rank was 4 there and is 8 here"],
        ),
        ({"references": {"semseg": 41.0}}, ["references was {semseg: 40.0, normals: 20.0} there"]),
        ({"base": {"seed": 7}}, []),
    ],
)
def test_results_of_another_base_or_other_references_are_refused(
    older: Callable[..., Path], learning: Space, over: dict[str, Any], why: list[str]
) -> None:
    older(budget={"trials": 3})
    if not why:
        assert len(read_older(learning(**over), "old").fitting) == 3
        return
    with pytest.raises(OlderRunFault) as caught:
        read_older(learning(**over), "old")
    assert len(caught.value.texts) == len(why)
    for text, part in zip(caught.value.texts, why, strict=True):
        assert text.startswith(f"old was measured otherwise: {part}")


def test_references_that_were_trained_otherwise_are_refused(older: Callable[..., Path], learning: Space) -> None:
    """The base's learning rate is no part of a trial that searches it, but of its references."""
    auto: dict[str, Any] = {"references": "auto"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("faar_ray.tune.run.references.References.jobs", lambda self: [])
        older(budget={"trials": 2}, **auto)
    assert len(read_older(learning(**auto), "old").fitting) == 2
    with pytest.raises(OlderRunFault, match=r"of the reference of semseg, optim\.lr was .* there and is 0\.02 here"):
        read_older(learning(**auto, base={"optim": {"lr": 0.02}}), "old")


def test_a_run_is_found_by_name_path_and_uri(
    older: Callable[..., Path], learning: Space, s3: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = older(budget={"trials": 3})
    monkeypatch.setenv("FAAR_RAY_CACHE", str(tmp_path / "cache"))
    place = location_of(f"{s3}/runs", "old")
    shutil.copytree(folder, place.path)
    place.remote_copy().push("space.yaml", "study.log")
    monkeypatch.chdir(folder.parent)
    for run in ("old", str(folder), "./old", f"{s3}/runs/old"):
        assert len(read_older(learning(), run).fitting) == 3
    assert len(read_older(learning(storage={"path": f"{s3}/runs"}), "old").fitting) == 3
    with pytest.raises(OlderRunFault, match=r"runs/gone: has no space\.yaml or study\.log"):
        read_older(learning(), f"{s3}/runs/gone")


def test_a_journal_that_is_being_written_is_read_and_left_as_it_is(older: Callable[..., Path], learning: Space) -> None:
    path = older(budget={"trials": 3}) / "study.log"
    with path.open("ab") as file:
        file.write(b'{"op_code":8,"wor')
    (path.parent / "study.log.lock").symlink_to(path)
    before = path.read_bytes()
    assert len(read_older(learning(), "old").fitting) == 3
    assert path.read_bytes() == before
    assert (path.parent / "study.log.lock").is_symlink()


@pytest.mark.parametrize(
    ("break_it", "why"),
    [
        (lambda folder: shutil.rmtree(folder), r"there is no run in .*runs/old \(did you mean 'older'\?\)"),
        (lambda folder: (folder / "study.log").unlink(), r"is no run of faar_ray\.tune: it has no study\.log"),
        (lambda folder: (folder / "study.log").write_text("[]\n{}\n"), r"study\.log: is not a readable Optuna journal"),
        (lambda folder: (folder / "space.yaml").write_text("version: 2\n"), r"space\.yaml is none of this version"),
        (lambda folder: (folder / "space.yaml").write_text("{"), r"space\.yaml: is not readable"),
    ],
)
def test_what_is_no_run_is_told_where_it_was_written(
    older: Callable[..., Path],
    space_file: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    break_it: Callable[[Path], Any],
    why: str,
) -> None:
    older("older", budget={"trials": 1})
    break_it(older(budget={"trials": 1}))
    runs = {"path": str(tmp_path / "runs")}
    path = space_file(tmp_path / "new.yaml", name="new", warm_start={"from": "old"}, storage=runs)
    line = 1 + path.read_text().splitlines().index("  from: old")
    for more in ([], ["--dry-run"]):
        assert main([str(path), *more]) == 2
        message = capsys.readouterr().err.strip()
        assert message.startswith(f"{path}:{line}:3: warm_start.from: ")
        assert re.search(why, message)
        assert not (tmp_path / "runs" / "new").exists()
    assert main([str(path), "warm_start.from=new", "--dry-run"]) == 2
    assert capsys.readouterr().err.strip().endswith("command line: warm_start.from=new: new is this run itself")


def test_a_dry_run_tells_of_the_older_run_and_shows_what_it_leads_to(
    older: Callable[..., Path], learning: Space
) -> None:
    older()
    output: list[str] = []
    cold = samples(learning(warm_start={"from": None}), 3)
    warm = samples(learning(), 3, output.append)
    assert output == ["warm start from old: 12 finished trials fit, 0 do not"]
    assert warm != cold


def test_cma_es_needs_a_tenth_to_begin_at(older: Callable[..., Path], learning: Space) -> None:
    older(budget={"trials": 9})
    with pytest.raises(ConfigError, match="cmaes needs 10 finished trials that fit, old has 9"):
        read_older(learning(search={"sampler": "cmaes"}, objectives=ONE), "old")


@pytest.mark.parametrize("sampler", ["random", "qmc"])
def test_a_sampler_that_learns_nothing_takes_no_older_run(learning: Space, sampler: str) -> None:
    with pytest.raises(ValueError, match=rf"from: must be null for sampler {sampler}: it learns from no result"):
        learning(search={"sampler": sampler})


def test_copies_of_a_population_teach_nothing_for_their_past_is_not_theirs(
    older: Callable[..., Path], learning: Callable[..., SearchSpace]
) -> None:
    pbt = {"type": "pbt", "min_epochs": 1, "population": 4}
    older(scheduler=pbt, search={"sampler": "random"}, budget={"trials": 9})
    outcome = read_older(learning(), "old")
    assert len(outcome.fitting) + outcome.skipped["trained under other values before"] == 4
    assert {result.trial_id for result in outcome.fitting} <= {f"t{number:03d}-s0" for number in range(4)}
    assert outcome.skipped["trained under other values before"] > 0
