"""What a trial's process warns of, such as a damaged checkpoint: kept until the next result takes it to the driver."""

from __future__ import annotations

import logging

ROOT = logging.getLogger("faar_ray")


class Notes(logging.Handler):
    """Keeps the package's warnings."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._kept: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one."""
        self._kept.append(record.getMessage())

    def taken(self) -> list[str]:
        """Those since the last call."""
        kept, self._kept = self._kept, []
        return kept


def notes() -> Notes:
    """The one of this process."""
    for handler in ROOT.handlers:
        if isinstance(handler, Notes):
            return handler
    handler = Notes()
    ROOT.addHandler(handler)
    return handler
