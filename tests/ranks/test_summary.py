from __future__ import annotations

from dataclasses import replace
from math import nan

import pytest

from faar_ray.ranks import sine_metrics
from faar_ray.records import SineRecord

ONE = SineRecord(0, 3, 1, "fc1", "depth", 9.0, 0.01, 0.05, 0.1, 0.45, 64, 40.0, 90.0, 0.2, None)


def test_no_records_give_no_metrics() -> None:
    assert sine_metrics([]) == {}


def test_values_are_means_over_layers_and_tasks() -> None:
    other = replace(ONE, task="edge", omega=20.0, omega_std=1.0, effective_rank_task=200.0, cosine=0.4)
    deeper = replace(ONE, layer="fc2", omega=11.0, omega_std=0.95, effective_rank=49.0, mean=-0.02, skew=-0.5)

    result = sine_metrics([ONE, other, deeper])

    assert result == pytest.approx(
        {
            "clock/omega/depth": 10.0,
            "clock/omega/edge": 20.0,
            "sine/cosine": 0.8 / 3,
            "sine/effective_rank": 380 / 3,
            "sine/effective_rank_base": 43.0,
            "sine/omega_std/mean": 0.8,
            "sine/omega_std/min": 0.45,
            "sine/omega_std/max": 1.0,
            "sine/mean": 0.0,
            "sine/skew": -0.1,
        }
    )


def test_what_was_not_measured_or_is_undefined_does_not_count() -> None:
    measured = replace(ONE, gradient_cosine=-0.3)
    undefined = replace(ONE, skew=nan, cosine=nan, effective_rank=nan, effective_rank_task=nan)

    result = sine_metrics([measured, undefined])

    assert result["sine/gradient_cosine"] == -0.3
    assert (result["sine/cosine"], result["sine/skew"], result["sine/effective_rank"]) == (0.2, 0.1, 90.0)
    assert sine_metrics([undefined]).keys() == {
        "clock/omega/depth",
        "sine/mean",
        "sine/omega_std/mean",
        "sine/omega_std/min",
        "sine/omega_std/max",
    }
