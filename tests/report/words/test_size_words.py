"""What a search with `front` says: names by size, the size that is enough, epochs counted once."""

from __future__ import annotations

from faar_ray.objectives.metrics import Objective
from faar_ray.records import TrialResult
from faar_ray.report.statistics.over_time import over_time
from faar_ray.report.words.answer import Answer, build_answer

GOALS = [Objective(name="delta_m", goal="maximize"), Objective(name="params/adapters", goal="minimize")]
SIZES = {56_000: (-4.0, 4), 100_000: (-0.6, 5), None: (-0.2, 6)}


def front(lrs: tuple[float, ...] = (0.002,), noise: float = 0.1) -> list[TrialResult]:
    """Trunks of 367k on two seeds with two points each; a seed's own effect of 2."""
    out = []
    for lr, seed in ((lr, seed) for lr in lrs for seed in (0, 1)):
        trunk = f"t{lr}-s{seed}"
        for i, (budget, (quality, inherited)) in enumerate(SIZES.items()):
            cut = {} if budget is None else {"ranks.budget": budget, "spectral.cut_epoch": inherited - 1}
            metrics = {
                "delta_m": quality + 2 * seed + noise * (-1) ** (seed + i) - 100 * abs(lr - 0.002),
                "params/adapters": float(budget or 367_000),
            }
            out.append(
                TrialResult(
                    f"{trunk}-{budget}" if budget else trunk,
                    f"{lr}-{budget}",
                    seed,
                    "point" if budget else "trial",
                    "COMPLETE",
                    {"optim.lr": lr, **cut},
                    metrics,
                    1.0,
                    6 - inherited if budget else 6,
                    parent=trunk if budget else "",
                    inherited=inherited if budget else 0,
                )
            )
    return out


def names(answer: Answer) -> set[str]:
    return {row.name for row in answer.rows}


def test_rows_are_named_by_their_size_and_by_what_their_trunk_searched() -> None:
    assert names(build_answer(front(), GOALS)) == {"budget 56k", "budget 100k", "full size"}
    both = names(build_answer(front((0.002, 0.004)), GOALS))
    assert {"budget 56k, lr 0.002", "budget 56k, lr 0.004", "full size, lr 0.004"} < both and len(both) == 6


def test_points_are_on_the_front_beside_their_trunks() -> None:
    answer = build_answer(front(), GOALS)
    assert [row.on_front for row in answer.rows] == [True, True, True]
    assert answer.states == {"COMPLETE": 2}, "trials are trunks"


def test_the_answer_says_which_size_is_enough() -> None:
    answer = build_answer(front(noise=0.3), GOALS)
    first = answer.sentences[0]
    assert first.startswith("Take 100k adapter parameters: delta_m 0.4 ± ")
    assert "like its full size (367k adapter parameters) to within " in first


def test_without_a_noise_estimate_nothing_is_said_about_sizes() -> None:
    answer = build_answer([result for result in front() if result.seed == 0], GOALS)
    assert not any(sentence.startswith("Take") for sentence in answer.sentences)


def test_a_constraint_leaves_out_the_points_that_break_it() -> None:
    from faar_ray.objectives.constraint import parse_constraint

    limit = parse_constraint("params/adapters <= 200000")
    assert limit is not None
    assert names(build_answer(front(), GOALS, [limit])) == {"budget 56k", "budget 100k"}


def test_epochs_over_time_count_a_trunk_once_and_its_points_by_what_they_trained() -> None:
    traced = over_time(front(), GOALS, (), {})
    assert traced is not None
    assert [step.epochs for step in traced.steps] == [6 + 2 + 1, 2 * (6 + 2 + 1)]
    alone = over_time([r for r in front() if r.role == "trial"], GOALS, (), {})
    assert alone is not None and len(alone.steps) == 2
