"""Coverage: the decision of which components stay, as properties."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from faar_ray.ranks import ImportanceScores, keep_by_coverage

# whole numbers: their float64 sums are exact, so the properties below need no tolerance
SCORES = st.lists(st.integers(0, 1000), min_size=1, max_size=40)
RHO = st.floats(0.01, 1.0)
BELOW_ONE = st.floats(0.01, 1.0, exclude_max=True)


def evidence(scores: list[float] | list[int], unobserved: int = 0) -> ImportanceScores:
    observed = torch.ones(len(scores) + unobserved, dtype=torch.bool)
    observed[len(scores) :] = False
    return ImportanceScores(torch.tensor([*scores, *[0] * unobserved], dtype=torch.float32), observed)


@given(SCORES, BELOW_ONE)
def test_k_is_the_smallest_number_that_covers_rho(scores: list[int], rho: float) -> None:
    kept = keep_by_coverage([evidence(scores)], rho)[0]
    total = float(sum(scores))
    if total == 0:
        assert len(kept.index_K) == len(scores)
        return
    k = len(kept.index_K)
    descending = sorted(scores, reverse=True)
    assert sum(descending[:k]) / total >= rho
    assert k == 1 or sum(descending[: k - 1]) / total < rho
    assert [scores[i] for i in kept.index_K.tolist()] == descending[:k]
    assert abs(kept.coverage - sum(descending[:k]) / total) < 1e-12


@given(SCORES, RHO, RHO)
def test_kept_rank_never_falls_as_rho_rises(scores: list[int], a: float, b: float) -> None:
    low, high = sorted((a, b))
    few, many = (keep_by_coverage([evidence(scores)], rho)[0].index_K for rho in (low, high))
    assert few.tolist() == many.tolist()[: len(few)]


@given(SCORES, RHO, st.integers(-20, 20))
def test_the_unit_of_the_loss_does_not_matter(scores: list[int], rho: float, exponent: int) -> None:
    scaled = [s * 2.0**exponent for s in scores]
    plain, other = (keep_by_coverage([evidence(s)], rho)[0].index_K.tolist() for s in (scores, scaled))
    assert plain == other


@given(st.integers(1, 40), RHO)
def test_ties_keep_the_lower_index(n: int, rho: float) -> None:
    kept = keep_by_coverage([evidence([3] * n)], rho)[0].index_K.tolist()
    assert kept == list(range(len(kept)))


@given(st.integers(1, 40), RHO)
def test_nothing_is_dropped_while_all_scores_are_zero(n: int, rho: float) -> None:
    assert keep_by_coverage([evidence([0] * n)], rho)[0].index_K.tolist() == list(range(n))


@given(
    st.lists(st.lists(st.floats(0, 2.0**90, width=32), min_size=1, max_size=20), min_size=1, max_size=4),
    st.integers(0, 3),
    st.integers(0, 3),
)
def test_coverage_of_one_keeps_everything_also_what_rounding_hides(
    adapters: list[list[float]], unobserved: int, floor: int
) -> None:
    kept = keep_by_coverage([evidence(a, unobserved) for a in adapters], 1.0, floor=floor)
    assert [sorted(k.index_K.tolist()) for k in kept] == [list(range(len(a) + unobserved)) for a in adapters]
    assert {k.coverage for k in kept} == {1.0}


def test_a_share_below_the_rounding_of_the_sum_is_kept_at_coverage_one() -> None:
    assert len(keep_by_coverage([evidence([1e20, 1.0, 0.0])], 1.0)[0].index_K) == 3
    assert len(keep_by_coverage([evidence([1e20, 1.0, 0.0])], 0.999)[0].index_K) == 1


@given(SCORES, st.integers(1, 5), RHO)
def test_components_that_were_never_scored_are_kept_and_come_last(
    scores: list[int], unobserved: int, rho: float
) -> None:
    with_them = keep_by_coverage([evidence(scores, unobserved)], rho)[0].index_K.tolist()
    without = keep_by_coverage([evidence(scores)], rho)[0].index_K.tolist()
    assert with_them == [*without, *range(len(scores), len(scores) + unobserved)]


@given(SCORES, RHO, st.integers(0, 4), st.integers(1, 4))
def test_margin_adds_and_floor_holds(scores: list[int], rho: float, margin: int, floor: int) -> None:
    plain = len(keep_by_coverage([evidence(scores)], rho)[0].index_K)
    kept = len(keep_by_coverage([evidence(scores)], rho, margin=margin, floor=floor)[0].index_K)
    assert kept == min(len(scores), max(plain, min(floor, len(scores))) + margin)


@given(st.lists(SCORES, min_size=2, max_size=5), BELOW_ONE)
def test_pooled_coverage_is_coverage_of_all_components_together(adapters: list[list[int]], rho: float) -> None:
    total = sum(map(sum, adapters))
    pooled = keep_by_coverage([evidence(a) for a in adapters], rho)
    if total == 0:
        return
    stored = sum(sum(a[i] for i in k.index_K.tolist()) for a, k in zip(adapters, pooled, strict=True))
    assert stored / total >= rho
    assert all(abs(k.coverage - stored / total) < 1e-12 for k in pooled)
    # minimal: without the smallest one that is not an adapter's floor, rho is missed
    beyond = [a[i] for a, k in zip(adapters, pooled, strict=True) for i in k.index_K.tolist()[1:]]
    assert not beyond or (stored - min(beyond)) / total < rho


def test_pooling_gives_rank_to_the_adapter_that_matters() -> None:
    weak, strong = keep_by_coverage([evidence([1, 1, 1, 1]), evidence([50, 40, 30, 20])], 0.9)
    assert (len(weak.index_K), len(strong.index_K)) == (1, 4)


def test_what_is_logged_is_descending_and_padded_with_zeros() -> None:
    assert evidence([2, 9, 4], unobserved=2).logged() == (9.0, 4.0, 2.0, 0.0, 0.0)
