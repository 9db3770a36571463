"""How many epochs a search did not train, because its trials began with what others had trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from faar_ray.records import TrialResult


def shared_sentences(results: Sequence[TrialResult]) -> Iterator[str]:
    """One sentence where any trial, point or control is a fork of a prefix or of its trunk."""
    counted = [result for result in results if result.role != "reference"]
    trained, shared = sum(result.epochs for result in counted), sum(result.inherited for result in counted)
    if shared:
        yield (
            f"Forks began with what other trials had trained: {trained} epochs were trained where all alone would have "
            f"taken {trained + shared}."
        )
