"""Rank traces of trials that have ended: a lost or damaged one is written again from the trial's last checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from faar_ray.errors import DataError
from faar_ray.records import TrialResult
from faar_ray.tracking.place import Place, TrialPlace
from faar_ray.tracking.rank_trace import read_rank_trace
from faar_ray.tracking.trial_files import write_trace
from faar_ray.train.checkpoint import last_good_checkpoint, records_from_plain


def mend_traces(place: Place, results: Sequence[TrialResult], say: Callable[[str], None]) -> None:
    """Make the traces of all trials readable, as far as there are checkpoints to make them from.

    Args:
        place: of the run.
        results: trials that have ended; the others write theirs when they go on.
        say: is told what was wrong.
    """
    for result in results:
        trial = place.trial(result.trial_id)
        trace = trial.trace
        try:
            read_rank_trace(trace)
        except DataError as fault:
            damaged = trace.exists()
            if _mended(trial):
                say(f"{fault}; it was written again from the trial's checkpoint")
            elif damaged:
                say(f"{fault}; there is no checkpoint to write it again from")
                trace.rename(trace.with_suffix(".damaged"))


def _mended(trial: TrialPlace) -> bool:
    trial.twin.pull()
    try:
        state = last_good_checkpoint(trial.folder)
    except DataError:
        return False
    if state is None:
        return False
    write_trace(trial.trace, trial.trial_id, records_from_plain(state["records"]))
    trial.twin.push()
    return True
