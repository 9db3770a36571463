"""`warm_start.from`: finished trials of an older run, added to the study before its first proposal.

Only the sampler uses them. They have the user attribute `warm_start` and no trial id, so that no budget, table, answer
or MLflow run counts them; see `journal.own`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, create_trial
from pydantic import ValidationError

from faar_ray.config.paths import is_remote
from faar_ray.config.quoting import quote_value
from faar_ray.config.validation_messages import Issue, did_you_mean, format_issues, issues_of
from faar_ray.config.yaml_document import Document
from faar_ray.errors import ConfigError, DataError
from faar_ray.records import TrialResult
from faar_ray.report.progress import WARM_START
from faar_ray.storage.run_location import RunLocation, download_run, location_of
from faar_ray.tune.propose import journal
from faar_ray.tune.propose.distributions import distribution, optuna_name, to_optuna
from faar_ray.tune.propose.optuna_samplers import Genetic
from faar_ray.tune.propose.trial_record import OLDER_ID
from faar_ray.tune.run.jobs import reference_job
from faar_ray.tune.run.run_folder import stored_space
from faar_ray.tune.space.conditions import unmet_condition
from faar_ray.tune.space.space import SearchSpace


def warm_start(study: optuna.Study, space: SearchSpace, notify: Callable[[str], None]) -> None:
    """Add the trials of the older run that fit, once: then the study has the attribute `warm_start`.

    Raises:
        OlderRunFault: before anything is added.
    """
    run = space.warm_start.from_
    if run is None or WARM_START in study.user_attrs:
        return
    older = read_older(space, run)
    # a driver that was killed while it did this has added some
    added = {trial.user_attrs.get(OLDER_ID) for trial in journal.trials(study)}
    for result in older.fitting:
        if result.trial_id not in added:
            study.add_trial(_as_trial(space, result, run))
    facts = {"run": run, "added": len(older.fitting), "skipped": dict(older.skipped)}
    study.set_user_attr(WARM_START, facts)
    notify(f"warm start from {run}: {older.summary}")


def _as_trial(space: SearchSpace, result: TrialResult, run: str) -> FrozenTrial:
    attrs = {WARM_START: run, OLDER_ID: result.trial_id, **journal.shown_attributes(result)}
    first_generation = {Genetic._get_generation_key(): 0} if space.search.sampler == "nsga2" else {}
    searched = {key: space.parameters[key] for key in result.params}
    limits = zip(space.constraints, space.limits, strict=True)
    return create_trial(
        values=[result.metrics[objective.name] for objective in space.objectives],
        params=to_optuna(searched, result.params),
        distributions={optuna_name(key, parameter): distribution(parameter) for key, parameter in searched.items()},
        user_attrs=attrs,
        system_attrs=first_generation,
        constraints={text: limit.excess(result.metrics) for text, limit in limits},
    )


RUN_FILES = ("space.yaml", "study.log")
MIN_TRIALS_FOR_CMAES = 10
"""CMA-ES starts from the best tenth of them."""


class OlderRunFault(ConfigError):
    """An older run that a search cannot use; `texts` are about the key `warm_start.from`."""

    def __init__(self, *texts: str) -> None:
        self.texts = texts
        super().__init__([f"warm_start.from: {text}" for text in texts])

    def at(self, document: Document) -> ConfigError:
        """The same with its position in the search-space file."""
        return ConfigError(format_issues((Issue(("warm_start", "from"), text) for text in self.texts), document))


@dataclass(frozen=True)
class OlderRun:
    """The trials of an older run that a search can use."""

    fitting: tuple[TrialResult, ...]
    skipped: Mapping[str, int]
    """How many of its finished trials do not fit, by reason."""

    @property
    def summary(self) -> str:
        """How many fit and how many do not, for people."""
        reasons = ", ".join(f"{number} {reason}" for reason, number in self.skipped.items())
        text = f"{len(self.fitting)} finished trials fit, {sum(self.skipped.values())} do not"
        return f"{text} ({reasons})" if reasons else text


def read_older(space: SearchSpace, run: str) -> OlderRun:
    """The finished trials of a run that fit a space.

    Args:
        space: of the search that is to learn from them.
        run: a name below its storage.path, a path or a URI.

    Raises:
        OlderRunFault: there is no such run, or it was measured otherwise.
    """
    try:
        folder = _run_location(space, run).path
        old = SearchSpace.model_validate(stored_space(folder))
        study = journal.read_journal(folder / "study.log")
        results, copied = journal.results(study), journal.copied(study)
    except ValidationError as error:
        first = issues_of(error, SearchSpace, {})[0]
        raise OlderRunFault(f"{run}: its space.yaml is none of this version ({first.name}: {first.text})") from None
    except OlderRunFault:
        raise
    except (ConfigError, DataError) as fault:
        raise OlderRunFault(str(fault)) from None
    finished = [result for result in results if result.role == "trial" and result.state == "COMPLETE"]
    part = "trained under other values before"
    reasons = [(result, part if result.trial_id in copied else unfit(space, result)) for result in finished]
    fitting = tuple(result for result, reason in reasons if not reason)
    if differences := list(_differences(old, space, fitting)):
        raise OlderRunFault(*(f"{run} was measured otherwise: {text}" for text in differences))
    if space.search.sampler == "cmaes" and len(fitting) < MIN_TRIALS_FOR_CMAES:
        raise OlderRunFault(f"cmaes needs {MIN_TRIALS_FOR_CMAES} finished trials that fit, {run} has {len(fitting)}")
    return OlderRun(fitting, Counter(reason for _, reason in reasons if reason))


def unfit(space: SearchSpace, result: TrialResult) -> str:
    """Why a trial does not fit a space, "" where it does."""
    params, searched = result.params, space.parameters
    if not params.keys() <= searched.keys():
        return "searched other keys"
    if not all(searched[key].contains(value) for key, value in params.items()):
        return "outside the bounds"
    active = {key for key, parameter in searched.items() if not unmet_condition(parameter, space.base, params)}
    if params.keys() != active:
        return "searched other keys"
    if not space.related.keep(params):
        return "break a relation"
    if not all(math.isfinite(result.metrics.get(objective.name, math.nan)) for objective in space.objectives):
        return "without the objectives"
    return ""


def _run_location(space: SearchSpace, run: str) -> RunLocation:
    """Where the run is, its files downloaded where they are remote."""
    below = location_of(space.storage.path, run)
    if is_remote(run):
        place = download_run(run, *RUN_FILES)
    elif Path(run).expanduser().is_dir() and not below.path.is_dir():
        place = RunLocation(Path(run).expanduser().absolute())
    else:
        place = download_run(below.uri, *RUN_FILES) if below.uri else below
    if str(place) == str(location_of(space.storage.path, space.name)):
        raise OlderRunFault(f"{run} is this run itself")
    if not place.path.is_dir():
        names = [folder.parent.name for folder in place.path.parent.glob("*/study.log")]
        raise OlderRunFault(f"there is no run in {place}{did_you_mean(place.path.name, names)}")
    if missing := [name for name in RUN_FILES if not (place.path / name).is_file()]:
        raise OlderRunFault(f"{place} is no run of faar_ray.tune: it has no {' and no '.join(missing)}")
    return place


def _differences(old: SearchSpace, new: SearchSpace, fitting: tuple[TrialResult, ...]) -> Iterator[str]:
    """What differs besides the searched keys, one sentence per key; the seed may."""
    differing: dict[str, str] = {}
    for result in fitting:
        before, now = (space.trial_config(result.params).dotted() for space in (old, new))
        differing |= {key: text for key, text in _unlike(before, now) if key != "seed"}
    yield from differing.values()
    measured = {objective.name for objective in new.objectives} | {limit.metric for limit in new.limits}
    if differing or not fitting or "delta_m" not in measured:
        return
    if "auto" not in (old.references, new.references) or old.references != new.references:
        before, now = ({"references": space.references} for space in (old, new))
        yield from (text for _, text in _unlike(before, now))
        return
    for task in new.trial_config({}).data.tasks:  # trained on the bases, also on what is searched in both
        before, now = (reference_job(space, task).config.dotted() for space in (old, new))
        yield from (f"of the reference of {task}, {text}" for _, text in _unlike(before, now))


def _unlike(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key in before:
        if before[key] != now.get(key):
            yield key, f"{key} was {quote_value(before[key])} there and is {quote_value(now.get(key))} here"
