"""A search space: the contents of a search-space YAML (version 1), frozen and validated on creation."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    Field,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)

from faar_ray.config.overrides import apply_overrides
from faar_ray.config.quoting import quote_value
from faar_ray.config.run_sections import FolderName, Storage, Tracking
from faar_ray.config.task_definitions import TYPES
from faar_ray.config.trial import Positive, Section, TrialConfig
from faar_ray.config.trial_file import TrialFile
from faar_ray.config.validation_messages import (
    Issue,
    did_you_mean,
    format_issues,
    issues_of,
    raise_issues,
    reference_faults,
    unknown_key,
    with_more,
)
from faar_ray.config.yaml_document import Document, read_yaml
from faar_ray.errors import ConfigError
from faar_ray.objectives.constraint import Constraint, parse_constraint
from faar_ray.objectives.metrics import Goal, Objective, goal_of, how_to_report, metric_names, study_objectives
from faar_ray.tune.space.conditions import incompatible_pairs, normalised, possible_integers, trial_faults
from faar_ray.tune.space.front import FrontConfig
from faar_ray.tune.space.front_rules import front_faults
from faar_ray.tune.space.initial_points import list_length, planned, point_faults, priors
from faar_ray.tune.space.overridden_path import space_path
from faar_ray.tune.space.parameter import DEFAULTS, Parameter, Scalar
from faar_ray.tune.space.relations import Relations, parse_relation, relates_keys, relation_faults
from faar_ray.tune.space.rules import (
    MOST_LISTED,
    budget_faults,
    control_faults,
    list_faults,
    older_run_faults,
    population_faults,
    sampler_faults,
    scheduler_faults,
)
from faar_ray.tune.space.sections import Budget, Failure, SchedulerConfig, SearchConfig, SearchResources, WarmStart

Handler = ValidatorFunctionWrapHandler
Controls = tuple[dict[str, Any], ...]

__all__ = ["Constraint", "Objective", "Parameter", "Scalar", "SearchSpace", "read_space"]


class SearchSpace(Section):
    """A whole search-space file.

    `base` is a raw trial config; `trial_config` resolves it with a sample on top.
    """

    base_model: ClassVar[type[TrialConfig]] = TrialConfig
    """What `base` holds."""

    version: Literal[1] = Field(description="Version of this schema.")
    name: FolderName = Field(description="Name of the search and of its folder.")
    base: dict[str, Any] = Field(default_factory=dict, description="Trial config that the search varies.")
    parameters: Annotated[dict[str, Parameter], Field(min_length=1)] = Field(
        description="Searched keys: dotted keys into the trial config."
    )
    relations: Annotated[tuple[str, ...], Field(strict=False)] = Field(
        (),
        description="Relations that every proposed trial keeps, such as `pdrs.rho_task <= pdrs.rho_shared`: keys and "
        "numbers, + - * / and brackets, compared by <=, <, >= or >.",
    )
    objectives: Annotated[tuple[Objective, ...], Field(min_length=1, strict=False)] = Field(
        description="Metrics to optimise; several give a Pareto front."
    )
    references: Literal["auto"] | dict[str, Positive] = Field(
        "auto", description="Single-task metric of each task; `auto` trains them once and caches them."
    )
    controls: Annotated[tuple[dict[str, Any], ...], Field(strict=False)] = Field(
        (), description="Trial configs (dotted keys over base) to compare the search with, e.g. {method: dora}."
    )
    constraints: Annotated[tuple[str, ...], Field(strict=False)] = Field(
        (), description="`metric <= number` or `metric >= number`; a trial that breaks one is never the best."
    )
    front: FrontConfig | None = Field(
        None, description="Cut every trial to smaller sizes: one training gives a whole front. null: no cuts."
    )
    search: SearchConfig = SearchConfig()
    budget: Annotated[Budget, Field(validate_default=True)] = Budget()
    scheduler: Annotated[SchedulerConfig, Field(validate_default=True)] = SchedulerConfig()
    warm_start: WarmStart = WarmStart()
    resources: SearchResources = SearchResources()
    failure: Failure = Failure()
    storage: Storage = Storage()
    tracking: Tracking = Tracking()

    @field_validator("base")
    @classmethod
    def _base_resolves(cls, base: dict[str, Any]) -> dict[str, Any]:
        raise_issues(trial_faults(base))
        return base

    @field_validator("parameters", mode="wrap")
    @classmethod
    def _parameters_fit(cls, raw: Any, handler: Handler, info: ValidationInfo) -> dict[str, Parameter]:
        try:
            parameters: dict[str, Parameter] = handler(raw)
        except ValidationError as error:
            raise with_more(error, _faults_of_valid_parameters(raw, _base(info))) from None
        parameters, faults = normalised(parameters, _base(info), whole="base" in info.data)
        raise_issues(faults)
        return parameters

    @field_validator("relations")
    @classmethod
    def _relations_parse(cls, relations: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if "parameters" in info.data:
            raise_issues(relation_faults(relations, info.data["parameters"], _base(info)))
        return relations

    @field_validator("objectives", mode="wrap")
    @classmethod
    def _objectives_known(cls, raw: Any, handler: Handler, info: ValidationInfo) -> tuple[Objective, ...]:
        try:
            objectives: tuple[Objective, ...] = handler(raw)
        except ValidationError as error:
            items = raw if isinstance(raw, list) else []
            names = [item.get("name") if isinstance(item, dict) else None for item in items]
            raise with_more(error, _objective_faults(names, info)) from None
        raise_issues(_objective_faults([objective.name for objective in objectives], info))
        return objectives

    @field_validator("references")
    @classmethod
    def _references_match(cls, references: Any, info: ValidationInfo) -> Any:
        tasks = TrialConfig.resolve(_base(info)).data.tasks
        if isinstance(references, dict):
            raise_issues(reference_faults(references, tasks))
        return references

    @field_validator("controls")
    @classmethod
    def _controls_resolve(cls, controls: Controls, info: ValidationInfo) -> Controls:
        base = _base(info)
        raise_issues(fault for index, control in enumerate(controls) for fault in control_faults(index, control, base))
        return controls

    @field_validator("constraints")
    @classmethod
    def _constraints_parse(cls, constraints: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        raise_issues(
            Issue((index,), fault) for index, text in enumerate(constraints) if (fault := _constraint_fault(text, info))
        )
        return constraints

    @field_validator("search")
    @classmethod
    def _sampler_takes_it(cls, search: SearchConfig, info: ValidationInfo) -> SearchConfig:
        parameters, objectives, limits = (
            info.data.get(name, ()) for name in ("parameters", "objectives", "constraints")
        )
        if info.data.get("front") is not None:  # of a hypervolume only feasible points are a part
            limits, objectives = limits if len(objectives) == 1 else (), study_objectives(objectives)
        raise_issues(sampler_faults(search, parameters or {}, objectives, limits))
        return search

    @field_validator("budget")
    @classmethod
    def _replicates_fit(cls, budget: Budget, info: ValidationInfo) -> Budget:
        replicates = getattr(info.data.get("search"), "replicates", None)
        if replicates and (least := replicates.top * replicates.seeds) > budget.trials:
            text = f"must be >= search.replicates.top * seeds = {least}, got {budget.trials}"
            raise_issues([Issue(("trials",), text)])
        return budget

    @field_validator("scheduler")
    @classmethod
    def _scheduler_fits(cls, scheduler: SchedulerConfig, info: ValidationInfo) -> SchedulerConfig:
        names = [objective.name for objective in info.data.get("objectives", ())]
        base, parameters = TrialConfig.resolve(_base(info)), info.data.get("parameters", {})
        fewest = min(possible_integers(parameters, "optim.epochs", base.optim.epochs))
        raise_issues(scheduler_faults(scheduler, names, fewest, base, parameters))
        return scheduler

    @field_validator("warm_start")
    @classmethod
    def _points_fit(cls, warm_start: WarmStart, info: ValidationInfo) -> WarmStart:
        parameters: dict[str, Parameter] | None = info.data.get("parameters")
        if parameters is not None:
            points, base = enumerate(warm_start.points), info.data.get("base")
            raise_issues(fault for index, point in points for fault in point_faults(index, point, parameters, base))
        if "search" in info.data:
            raise_issues(older_run_faults(info.data["search"], warm_start.from_))
        return warm_start

    @model_validator(mode="after")
    def _sections_fit_together(self) -> Self:
        """Check the sections together, each of which is valid alone; the first check with faults ends it."""
        faults = trial_faults(self.base, priors(self.parameters, self.base))
        raise_issues(Issue(("parameters",), f"{fault.name}: {fault.text}") for fault in faults)
        if self.search.sampler != "points":
            raise_issues(incompatible_pairs(self.parameters, self.base, self.related.keep))
        raise_issues(self._point_relation_faults())

        if self.search.listed:
            raise_issues(self._list_faults())
        if self.scheduler.type == "pbt":
            points = len(self.planned())
            raise_issues(population_faults(self.scheduler, self.search, self.budget, self.parameters, points))
        raise_issues(budget_faults(self.budget, self.resources, self.search, self.scheduler))
        if self.front is not None:
            parts = (self.parameters, self.objectives, self.scheduler, self.warm_start)
            raise_issues(front_faults(self.front, self.base, *parts))
        return self

    def trial_config(self, sample: Mapping[str, Any]) -> TrialConfig:
        """The base with a sample (dotted keys) on top.

        Raises:
            pydantic.ValidationError: the sample's values do not fit together.
        """
        return TrialConfig.resolve(self.base, **sample)

    def planned(self) -> list[dict[str, Scalar]]:
        """Points to try before the sampler proposes, in order; of a list all of them, seed by seed."""
        return planned(self.search, self.parameters, self.base, self.warm_start.points, self.related.keep)

    def _list_faults(self) -> Iterator[Issue]:
        points, keep = self.warm_start.points, self.related.keep
        trials = list_length(self.search, self.parameters, self.base, points, MOST_LISTED, keep)
        yield from list_faults(self.search, self.parameters, points, self.scheduler, trials, self.budget)

    def _point_relation_faults(self) -> Iterator[Issue]:
        if fault := self.related.fault(priors(self.parameters, self.base)):
            yield Issue(("parameters",), f"the priors {fault}")
        for index, point in enumerate(self.warm_start.points):
            if fault := self.related.fault(point):
                yield Issue(("warm_start", "points", index), fault)

    @property
    def related(self) -> Relations:
        """The relations, parsed, over the parameters and the base."""
        parsed = tuple(map(parse_relation, self.relations))
        return Relations(parsed, self.parameters, self.base, leftovers=self.search.sampler == "points")

    @property
    def study_objectives(self) -> tuple[Objective, ...]:
        """What the sampler sees: the objectives; with `front` one value per trial, over all of its points."""
        return self.objectives if self.front is None else study_objectives(self.objectives)

    @property
    def limits(self) -> tuple[Constraint, ...]:
        """The constraints, parsed."""
        return tuple(constraint for text in self.constraints if (constraint := parse_constraint(text)) is not None)

    def goal(self, metric: str) -> Goal:
        """Direction of a metric: that of the objective, else the usual one."""
        return next((objective.goal for objective in self.objectives if objective.name == metric), goal_of(metric))


def _base(info: ValidationInfo) -> dict[str, Any]:
    """The base if it is valid, else the defaults, so that further faults are reported too."""
    base: dict[str, Any] = info.data.get("base", {})
    return base


def _unknown_metric(name: str, info: ValidationInfo) -> str:
    every_task = {"data": {"tasks": list(TYPES)}}
    config = TrialConfig.resolve(info.data.get("base", every_task))
    names = metric_names(config)
    if name in names:
        return ""
    if how := how_to_report(name, config):
        return how
    hint = did_you_mean(name, names) or f"; known are {', '.join(names)}"
    return f"no metric of these tasks is called {quote_value(name)}{hint}"


def _objective_faults(names: Sequence[Any], info: ValidationInfo) -> Iterator[Issue]:
    for index, name in enumerate(names):
        if isinstance(name, str):
            text = "must not repeat" if name in names[:index] else _unknown_metric(name, info)
            if text:
                yield Issue((index, "name"), text)


def _faults_of_valid_parameters(raw: Any, base: dict[str, Any]) -> Iterator[Issue]:
    valid: dict[str, Parameter] = {}
    for key, value in raw.items() if isinstance(raw, dict) else ():
        try:
            valid[key] = Parameter.model_validate(value)
        except ValidationError:
            if key not in DEFAULTS:
                yield Issue((key,), unknown_key(key, DEFAULTS))
    yield from normalised(valid, base, whole=False)[1]


def _constraint_fault(text: str, info: ValidationInfo) -> str:
    constraint = parse_constraint(text)
    if relates_keys(text):
        return f"must limit a metric, got {quote_value(text)}: what relates keys of a trial stands under relations"
    if constraint is None:
        return f"must read `metric <= number` or `metric >= number`, got {quote_value(text)}"
    return _unknown_metric(constraint.metric, info)


def read_document(path: Path, overrides: Sequence[str] = ()) -> Document:
    """A search-space file with `key=value` overrides on top, not yet checked."""
    document = read_yaml(path)
    if document.data.keys() <= TrialFile.model_fields.keys() and document.data.keys() & TrialConfig.model_fields.keys():
        text = f"is a trial's config, not a search space; train it: python -m faar_ray.train {shlex.quote(str(path))}"
        raise ConfigError(f"{document.file}:1:1: {text}")
    return apply_overrides(document, overrides, space_path)


def read_space(path: Path, overrides: Sequence[str] = ()) -> SearchSpace:
    """The search space of a file.

    Args:
        path: a search-space YAML, version 1.
        overrides: `key=value` each; the key is one of the file (`budget.trials`) or of the trial config (`pdrs.beta`,
            short for `base.pdrs.beta`).

    Raises:
        ConfigError: with every fault, one line each.
    """
    return space_of(read_document(path, overrides))


def space_of(document: Document) -> SearchSpace:
    """The search space of a document; the same errors as `read_space`."""
    try:
        return SearchSpace.model_validate(document.data)
    except ValidationError as error:
        raise ConfigError(format_issues(issues_of(error, SearchSpace, document.data), document)) from None
