"""How much of their trainings two configs share, from what each key declares (`moment`)."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import cache

from faar_ray.config.moments.moment import START, MattersFrom, Moment, MomentOf, first_decision, last_end
from faar_ray.config.section import Section
from faar_ray.config.trial import TrialConfig

BETA = "pdrs.beta"
"""Acts on the scores alone: a trial that carries those of several betas shares its training with all of them."""


@cache
def config_keys() -> dict[str, MomentOf | None]:
    """Every dotted key of a trial's config, with the moment that it declares, if any."""
    return dict(_keys_of(TrialConfig, ""))


def _keys_of(section: type[Section], prefix: str) -> Iterator[tuple[str, MomentOf | None]]:
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            yield from _keys_of(kind, f"{prefix}{name}.")
        else:
            declared = [item for item in field.metadata if isinstance(item, MattersFrom)]
            yield f"{prefix}{name}", declared[0].moment if declared else None


def moment_of(key: str, config: TrialConfig, betas: Collection[float] = ()) -> Moment:
    """From when on a key matters in a config; `betas` are carried along, see `BETA`."""
    if key == BETA and config.pdrs.beta in betas and config.ranks.entry.carries:
        return first_decision(config)
    declared = config_keys()[key]
    return START if declared is None else declared(config)


def differing(a: Section, b: Section, prefix: str = "") -> list[str]:
    """Keys in which two configs differ."""
    keys: list[str] = []
    for name in type(a).model_fields:
        ours, theirs = getattr(a, name), getattr(b, name)
        if ours == theirs:
            continue
        nested = isinstance(ours, Section) and f"{prefix}{name}" not in config_keys()
        keys += differing(ours, theirs, f"{prefix}{name}.") if nested else [f"{prefix}{name}"]
    return keys


def shared_until(a: TrialConfig, b: TrialConfig, betas: Collection[float] = ()) -> Moment:
    """Up to where two trainings are equal, at most the end of the shorter one's last epoch.

    Args:
        a: one config.
        b: the other.
        betas: values of `pdrs.beta` whose scores are carried along, see `BETA`.
    """
    return min([last_end(a), last_end(b), *(_matters_from(key, a, b, betas) for key in differing(a, b))])


def forbidden(parent: TrialConfig, fork: TrialConfig, moment: Moment, betas: Collection[float] = ()) -> list[str]:
    """Keys in which a fork differs from its parent though they matter before the moment where it begins."""
    return [key for key in differing(parent, fork) if _matters_from(key, parent, fork, betas) < moment]


def _matters_from(key: str, a: TrialConfig, b: TrialConfig, betas: Collection[float]) -> Moment:
    return min(moment_of(key, a, betas), moment_of(key, b, betas))
