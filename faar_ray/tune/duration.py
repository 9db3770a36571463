"""Durations for people."""

from __future__ import annotations


def clock(duration: float) -> str:
    """Seconds as `m:ss` below an hour, `h:mm:ss` from there on."""
    minutes, rest = divmod(round(duration), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
