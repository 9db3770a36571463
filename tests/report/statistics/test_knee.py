from __future__ import annotations

import math

import pytest

from faar_ray.objectives.metrics import Objective
from faar_ray.records import TrialResult
from faar_ray.report.words.answer import Answer, build_answer

GOALS = [Objective(name="delta_m", goal="maximize"), Objective(name="trainable_params", goal="minimize")]


def answer_to(points: dict[str, tuple[float, float]], noise: float = 0.01, seeds: int = 2) -> Answer:
    return build_answer(
        [
            TrialResult(
                f"{name}-s{s}", name, s, "trial", "COMPLETE", {"name": name},
                {"delta_m": quality + noise * (-1) ** (s + i), "trainable_params": size}, 1.0, 6,
            )
            for i, (name, (quality, size)) in enumerate(points.items())
            for s in range(seeds)
        ],
        GOALS,
    )  # fmt: skip


BENT = {"large": (0.0, 400.0), "bend": (-1.0, 100.0), "low": (-6.0, 60.0), "small": (-10.0, 0.0)}


def test_the_knee_is_the_point_farthest_from_the_line_between_the_ends() -> None:
    knee = answer_to(BENT).knee

    assert knee is not None
    assert (knee.config_id, knee.ends) == ("bend", ("large", "small"))
    assert knee.distance == pytest.approx((0.9 + 0.75 - 1) / math.sqrt(2), abs=0.01)
    assert any("The knee of the front is name bend" in sentence for sentence in answer_to(BENT).sentences)


def test_a_straight_or_hollow_front_has_none() -> None:
    assert answer_to({"a": (0.0, 10.0), "b": (-5.0, 5.0), "c": (-10.0, 0.0)}, noise=0.0).knee is None
    assert answer_to({"a": (0.0, 10.0), "b": (-8.0, 5.0), "c": (-10.0, 0.0)}, noise=0.0).knee is None
    assert answer_to({"a": (0.0, 10.0), "c": (-10.0, 0.0)}).knee is None


@pytest.mark.parametrize(
    ("noise", "seeds", "doubt"),
    [(3.0, 2, "within the seed noise"), (0.0, 1, "the seed noise is unknown"), (0.01, 2, "")],
)
def test_it_says_where_noise_would_make_such_a_bend(noise: float, seeds: int, doubt: str) -> None:
    message = [s for s in answer_to(BENT, noise, seeds).sentences if s.startswith("The knee")]

    assert message
    assert doubt in message[0]
    assert bool(doubt) == (";" in message[0])
