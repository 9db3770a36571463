"""The sentences about importances, with a warning wherever the noise makes them meaningless."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from faar_ray.report.statistics.importance import ENOUGH, FEWEST, Importance, Importances
from faar_ray.report.words.wording import label

MOST_NAMED = 3


def importance_sentences(importances: Sequence[Importances]) -> Iterator[str]:
    """A sentence per objective, warnings first."""
    few = {one.trials for one in importances if one.rows and one.trials < ENOUGH}
    for trials in few:
        yield f"WARNING: {trials} finished trials are too few: importances below {ENOUGH} trials are unreliable."
    for one in importances:
        yield _sentence(one) if one.rows else f"No importance for {label(one.objective)}: {one.refused}."
    for name in dict.fromkeys(name for one in importances if one.rows for name in one.rare):
        yield f"No importance of {name}: fewer than {FEWEST} finished trials have it."


def _sentence(one: Importances) -> str:
    name, sd = label(one.objective), f"{one.noise.spread_sd:.2g}"
    if not one.noise.spread_dof:
        return f"WARNING: the seed noise of {name} is unknown, so its importances may be noise."
    above = [row for row in one.rows if row.beyond_noise]
    if not above:
        return f"WARNING: importance for {name} is within the noise (sd {sd} over seeds): no effect is larger."
    text = (
        f"{name}: {', '.join(map(_format_importance, above[:MOST_NAMED]))}, beyond the seed noise (sd {sd} over seeds)"
    )
    rest = [row.parameter for row in one.rows if not row.beyond_noise]
    return f"{text}; the importance of {' and '.join(rest)} is within the noise." if rest else f"{text}."


def _format_importance(row: Importance) -> str:
    where = f" over the {row.trials} trials that have it" if row.conditional else ""
    return f"{row.parameter} {row.share:.0%}{where} (a gap of {row.effect:.3g} between its best and worst values)"
