from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from faar_ray.records import Role, State, TrialResult
from faar_ray.report.statistics.groups import complete_configs, short_names, with_names


def trial(
    config: str, seed: int = 0, value: float = 0.0, state: State = "COMPLETE", role: Role = "trial"
) -> TrialResult:
    return TrialResult(f"{config}-s{seed}", config, seed, role, state, {"p": config}, {"delta_m": value}, 1.0, 1)


def test_only_complete_trials_that_are_no_references_count() -> None:
    rows = [
        trial("a"),
        trial("b", state="PRUNED"),
        trial("c", state="FAIL"),
        trial("d", role="reference"),
        trial("a", 1),
    ]

    result = complete_configs(rows)

    assert [(c.config_id, c.seeds) for c in result] == [("a", (0, 1))]


def test_of_a_seed_that_ran_twice_the_last_counts() -> None:
    (result,) = complete_configs([trial("a", value=1.0), trial("a", value=2.0)])

    assert result.mean("delta_m") == 2.0


def test_names_say_what_varies_with_as_many_digits_as_it_takes() -> None:
    result = short_names(
        {"a": {"pdrs.rho": 0.99501, "k": 8}, "b": {"pdrs.rho": 0.99502, "k": 8}, "c": {"pdrs.rho": 0.5, "k": 8}}
    )

    assert result == {"a": "rho 0.99501", "b": "rho 0.99502", "c": "rho 0.5"}


def test_names_leave_out_what_a_configuration_does_not_have() -> None:
    result = short_names(
        {"a": {"kind": "hrnet"}, "b": {"kind": "ts_pd", "cutoff": 0.5}, "c": {"kind": "ts_pd", "cutoff": 0.7}}
    )

    assert result == {"a": "kind hrnet", "b": "kind ts_pd, cutoff 0.5", "c": "kind ts_pd, cutoff 0.7"}


def test_keys_with_one_last_part_stay_dotted() -> None:
    assert short_names({"a": {"x.lr": 1, "y.lr": 1}, "b": {"x.lr": 2, "y.lr": 3}})["a"] == "x.lr 1, y.lr 1"


@given(
    st.dictionaries(
        st.text("abc", min_size=1), st.dictionaries(st.sampled_from(["p.q", "r"]), st.floats(0, 1)), min_size=1
    )
)
def test_names_are_unique(params: dict[str, dict[str, Any]]) -> None:
    result = short_names(params)

    assert len(set(result.values())) == len(params)
    assert all(result.values())


def test_controls_are_named_by_all_they_set() -> None:
    rows = [
        TrialResult(
            f"c{rank}", f"c{rank}", 0, "control", "COMPLETE", {"method": "dora", "ranks.init_rank": rank}, {}, 1.0, 1
        )
        for rank in (4, 16)
    ]

    assert [c.name for c in with_names(complete_configs(rows))] == ["dora, init_rank 4", "dora, init_rank 16"]
